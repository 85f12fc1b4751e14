//! Generates, from the port list of a model, the C++ that moves words in and out of it and the
//! Rust structs that name those words.
//!
//! A port of up to 32 bits takes one word, up to 64 bits two, a wider one as many as it needs,
//! least significant word first.

use std::fmt::Write;

use crate::verilator::Port;

fn words(p: &Port) -> usize {
    p.width.div_ceil(32)
}

/// Ports that the host sees: all but the clock.
fn visible(ports: &[Port], input: bool) -> impl Iterator<Item = (usize, &Port)> {
    let mut at = 0;
    ports
        .iter()
        .filter(move |p| p.input == input && p.name != "clk_i")
        .map(move |p| {
            let offset = at;
            at += words(p);
            (offset, p)
        })
}

fn total(ports: &[Port], input: bool) -> usize {
    visible(ports, input)
        .last()
        .map_or(0, |(at, p)| at + words(p))
}

/// C++ for one model: `struct Ports<Vname>` with `scatter`, `gather` and `active`.
pub fn cpp(prefix: &str, ports: &[Port]) -> String {
    let mut s = format!(
        "#include \"{prefix}.h\"\n#include \"model_of.h\"\n\nnamespace tlproof {{\n\
         struct {prefix}Ports {{\n"
    );
    for (input, name, args) in [
        (true, "scatter", format!("{prefix}& m, const uint32_t* w")),
        (false, "gather", format!("const {prefix}& m, uint32_t* w")),
    ] {
        let _ = writeln!(s, "  static void {name}({args}) {{");
        for (at, p) in visible(ports, input) {
            let n = &p.name;
            let _ = match (input, p.width) {
                (true, 1..=32) => writeln!(s, "    m.{n} = w[{at}];"),
                (true, 33..=64) => writeln!(
                    s,
                    "    m.{n} = static_cast<uint64_t>(w[{}]) << 32 | w[{at}];",
                    at + 1
                ),
                (false, 1..=32) => writeln!(s, "    w[{at}] = m.{n};"),
                (false, 33..=64) => writeln!(
                    s,
                    "    w[{at}] = static_cast<uint32_t>(m.{n}); w[{}] = m.{n} >> 32;",
                    at + 1
                ),
                (true, _) => {
                    writeln!(
                        s,
                        "    std::memcpy(m.{n}.data(), w + {at}, {});",
                        4 * words(p)
                    )
                }
                (false, _) => {
                    writeln!(
                        s,
                        "    std::memcpy(w + {at}, m.{n}.data(), {});",
                        4 * words(p)
                    )
                }
            };
        }
        s.push_str("  }\n");
    }
    // Without an activity output every cycle counts as active.
    let active = if ports.iter().any(|p| p.name == "activity_o") {
        "m.activity_o"
    } else {
        "true"
    };
    let _ = writeln!(
        s,
        "  static bool active(const {prefix}& m) {{ (void)m; return {active}; }}"
    );
    let _ = writeln!(
        s,
        "}};\nstd::unique_ptr<Model> new_{prefix}() {{\n  \
         return std::make_unique<ModelOf<{prefix}, {prefix}Ports>>();\n}}\n}}  // namespace tlproof"
    );
    s
}

/// C++ for the factory over all models.
pub fn factory(prefixes: &[String]) -> String {
    let mut s = String::from("#include \"model.h\"\n#include <stdexcept>\n\nnamespace tlproof {\n");
    for p in prefixes {
        let _ = writeln!(s, "std::unique_ptr<Model> new_{p}();");
    }
    s.push_str(
        "std::unique_ptr<Model> new_model(rust::Str name) {\n  const std::string n(name);\n",
    );
    for p in prefixes {
        let _ = writeln!(s, "  if (n == \"{p}\") return new_{p}();");
    }
    s.push_str("  throw std::runtime_error(\"no model \" + n);\n}\n}  // namespace tlproof\n");
    s
}

/// Rust for one model: a module with `In`, `Out` and the marker type.
pub fn rust(top: &str, prefix: &str, ports: &[Port]) -> String {
    let marker: String = top
        .split('_')
        .map(|part| {
            let (head, tail) = part.split_at(1);
            head.to_uppercase() + tail
        })
        .collect();
    let mut s = format!(
        "/// Ports of the top module `{top}`.\npub mod {top} {{\n    use crate::{{Top, Words}};\n    \
         /// The top module `{top}`.\n    pub struct {marker};\n    impl Top for {marker} {{\n        \
         const PREFIX: &'static str = \"{prefix}\";\n        type In = In;\n        \
         type Out = Out;\n    }}\n"
    );
    for (input, name) in [(true, "In"), (false, "Out")] {
        let n = total(ports, input);
        let what = if input { "Inputs" } else { "Outputs" };
        let _ = writeln!(
            s,
            "    /// {what} of `{top}`, one word or more a port.\n    #[derive(Clone)]\n    \
             pub struct {name} {{ w: [u32; {n}] }}\n    impl Default for {name} {{\n        \
             fn default() -> Self {{ Self {{ w: [0; {n}] }} }}\n    }}\n    \
             impl Words for {name} {{\n        fn words(&self) -> &[u32] {{ &self.w }}\n        \
             fn words_mut(&mut self) -> &mut [u32] {{ &mut self.w }}\n    }}\n    impl {name} {{"
        );
        for (at, p) in visible(ports, input) {
            let port = &p.name;
            let bits = p.width;
            let k = words(p);
            let _ = match (input, bits) {
                (true, 1) => writeln!(
                    s,
                    "        /// Drives `{port}`.\n        #[inline]\n        \
                     pub fn set_{port}(&mut self, v: bool) {{ self.w[{at}] = u32::from(v); }}"
                ),
                (true, 2..=32) => writeln!(
                    s,
                    "        /// Drives `{port}`, {bits} bits.\n        #[inline]\n        \
                     pub fn set_{port}(&mut self, v: u32) {{ self.w[{at}] = v; }}"
                ),
                (true, 33..=64) => writeln!(
                    s,
                    "        /// Drives `{port}`, {bits} bits.\n        #[inline]\n        \
                     pub fn set_{port}(&mut self, v: u64) {{ self.w[{at}] = v as u32; \
                     self.w[{}] = (v >> 32) as u32; }}",
                    at + 1
                ),
                (true, _) => writeln!(
                    s,
                    "        /// Drives `{port}`, {bits} bits, least significant word first.\n        \
                     #[inline]\n        pub fn {port}(&mut self) -> &mut [u32; {k}] {{ \
                     (&mut self.w[{at}..{}]).try_into().expect(\"length\") }}",
                    at + k
                ),
                (false, 1) => writeln!(
                    s,
                    "        /// `{port}`.\n        #[inline]\n        \
                     pub fn {port}(&self) -> bool {{ self.w[{at}] != 0 }}"
                ),
                (false, 2..=32) => writeln!(
                    s,
                    "        /// `{port}`, {bits} bits.\n        #[inline]\n        \
                     pub fn {port}(&self) -> u32 {{ self.w[{at}] }}"
                ),
                (false, 33..=64) => writeln!(
                    s,
                    "        /// `{port}`, {bits} bits.\n        #[inline]\n        \
                     pub fn {port}(&self) -> u64 {{ u64::from(self.w[{at}]) | \
                     u64::from(self.w[{}]) << 32 }}",
                    at + 1
                ),
                (false, _) => writeln!(
                    s,
                    "        /// `{port}`, {bits} bits, least significant word first.\n        \
                     #[inline]\n        pub fn {port}(&self) -> &[u32; {k}] {{ \
                     (&self.w[{at}..{}]).try_into().expect(\"length\") }}",
                    at + k
                ),
            };
        }
        s.push_str("    }\n");
    }
    s.push_str("}\n");
    // A model with the ports of an IOMMU can be driven as one.
    if ports.iter().any(|p| p.name == "tr_req_i") {
        let strap = ports.iter().any(|p| p.name == "config_i");
        let strap = if strap { ", set_config_i" } else { "" };
        let _ = writeln!(s, "crate::iommu::iommu_ports!({top}{strap});");
    }
    s
}
