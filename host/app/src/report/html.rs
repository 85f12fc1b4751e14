//! `report.html`: one file with everything in it, no scripts, nothing fetched.

use std::fmt::Write;

use super::{
    Error, plot,
    results::{Check, Results, TraceRow, Verdict, ViolationRow},
    stats::Stats,
};

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fbfbfa;--fg:#1d2125;--dim:#5d6670;--line:#dcdfe3;--card:#fff;\
--good:#1c7c45;--bad:#c02f3b;--warn:#96650a}\
@media(prefers-color-scheme:dark){:root{--bg:#15181b;--fg:#e4e7ea;--dim:#9aa4ae;--line:#31373d;\
--card:#1c2024;--good:#5cc98a;--bad:#f1737d;--warn:#e0ad4e}}\
*{box-sizing:border-box}\
body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:68rem;background:var(--bg);color:var(--fg);\
font:15px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.1rem;margin:2.25rem 0 .75rem}\
.pass{color:var(--good)}.fail{color:var(--bad)}.incomplete,.none{color:var(--warn)}\
code,pre{font:13px/1.5 ui-monospace,monospace}\
pre{margin:.5rem 0 0;padding:.75rem;overflow-x:auto;background:var(--bg);\
border:1px solid var(--line);border-radius:4px}\
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.75rem;\
margin:1.25rem 0}\
.facts div,.plot,details{background:var(--card);border:1px solid var(--line);border-radius:6px;\
padding:.6rem .8rem}\
.facts span{display:block;color:var(--dim);font-size:.8rem}\
.facts b{font-weight:600;font-variant-numeric:tabular-nums}\
.plot{margin-bottom:1rem}.plot svg{display:block;width:100%;height:auto}\
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1rem;color:var(--dim);font-size:.85rem}\
.legend i{display:inline-block;width:.7rem;height:.7rem;border-radius:2px;margin-right:.35rem}\
.scroll{overflow-x:auto}\
table{border-collapse:collapse;width:100%;font-size:.9rem}\
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}\
th{color:var(--dim);font-weight:500}\
.n{text-align:right;font-variant-numeric:tabular-nums}\
details{margin-bottom:.6rem}summary{cursor:pointer}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:.6rem 0 0}\
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}";

/// The beginning of a page with this title.
#[must_use]
pub fn page_head(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>\
         <meta name=viewport content=\"width=device-width\"><style>{STYLE}</style><h1>{title}</h1>"
    )
}

/// Text for HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A number with thin spaces between groups of three digits.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// A failure count, coloured if it is one.
fn failures(n: u64) -> String {
    if n > 0 {
        format!("<td class=\"n fail\">{}</td>", grouped(n))
    } else {
        "<td class=n>0</td>".to_owned()
    }
}

/// Writing to a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        let _ = write!($out, $($arg)*);
    }};
}

fn head(page: &mut String, results: &Results) {
    let s = &results.summary;
    let says = match s.verdict {
        Verdict::Pass => "every check held",
        Verdict::Fail => "a check failed",
        Verdict::Incomplete => "the run ended before its end",
    };
    put!(
        page,
        "<!doctype html>\n<html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\">\
         <title>tlproof: {verdict}</title>\n<style>{STYLE}</style>\n\
         <h1>tlproof: <span class={verdict}>{verdict}</span></h1>\n<div>{says}</div>\n\
         <div class=facts>",
        verdict = s.verdict.name(),
    );
    for (name, value) in [
        ("Seed", s.seed.to_string()),
        ("Profile", escape(&s.profile)),
        ("Cycles", grouped(s.cycles)),
        ("TLPs", grouped(s.tlps)),
        ("Rows", grouped(s.rows)),
        ("Mapping calls", grouped(s.map_calls)),
        ("Checks", grouped(s.checked)),
        ("Failed", grouped(s.failed)),
        ("Version", escape(&s.program)),
    ] {
        put!(page, "<div><span>{name}</span><b>{value}</b></div>");
    }
    put!(
        page,
        "</div>\n<div>Repeat with</div><pre>{}</pre>\n",
        escape(&s.command)
    );
}

fn violation(page: &mut String, v: &ViolationRow, open: bool) {
    put!(
        page,
        "<details{}><summary><span class=fail>{}</span> {}: expected {}, got {} at {}, TLP {}, \
         cycle {}</summary><dl>",
        if open { " open" } else { "" },
        escape(&v.rule),
        escape(&v.field),
        escape(&v.expected),
        escape(&v.got),
        escape(&v.tap),
        v.tlp,
        grouped(v.cycle)
    );
    for (name, value) in [
        ("field", &v.field),
        ("expected", &v.expected),
        ("got", &v.got),
        ("judge", &v.judge),
        ("clause", &v.clause),
    ] {
        put!(page, "<dt>{name}<dd><code>{}</code>", escape(value));
    }
    put!(page, "</dl>");
    if !v.story.is_empty() {
        put!(page, "<pre>{}</pre>", escape(&v.story.join("\n")));
    }
    put!(page, "</details>\n");
}

/// Violations of one kind that are shown in full.
const SHOWN: usize = 5;

/// The first violations of each kind, in the order of first sight; how many are shown.
fn violations(page: &mut String, all: &[ViolationRow]) -> u64 {
    let mut kinds: Vec<(&ViolationRow, Vec<&ViolationRow>)> = Vec::new();
    for v in all {
        let kind = |v: &ViolationRow| [&v.judge, &v.field, &v.tap, &v.expected].map(String::clone);
        match kinds.iter_mut().find(|(first, _)| kind(first) == kind(v)) {
            Some((_, list)) => list.push(v),
            None => kinds.push((v, vec![v])),
        }
    }
    let mut shown = 0;
    for (i, (_, list)) in kinds.iter().enumerate() {
        for (j, v) in list.iter().take(SHOWN).enumerate() {
            violation(page, v, i == 0 && j == 0);
            shown += 1;
        }
    }
    shown
}

fn traces(page: &mut String, rows: &[TraceRow]) {
    put!(
        page,
        "<h2>Replayed traces</h2><div class=scroll><table><tr><th>Trace<th class=n>Events\
         <th class=n>Mappings<th class=n>Replayed<th class=n>Compared<th class=n>Differ\
         <th class=n>TLPs<th class=n>Failed checks\n"
    );
    for t in rows {
        put!(page, "<tr><td>{}", escape(&t.name));
        if let Some(reason) = &t.truncated {
            put!(page, "<div class=none>ends early: {}</div>", escape(reason));
        }
        for n in [t.events, t.mappings, t.replayed, t.compared] {
            put!(page, "<td class=n>{}", grouped(n));
        }
        put!(page, "<td class=n>{}", grouped(t.differed));
        put!(page, "<td class=n>{}", grouped(t.tlps));
        put!(page, "{}\n", failures(t.failed));
    }
    put!(page, "</table></div>\n");
    for t in rows.iter().filter(|t| !t.differences.is_empty()) {
        put!(
            page,
            "<h2>{}: where the decisions differ from the kernel\u{2019}s</h2><div class=scroll>\
             <table><tr><th class=n>Times<th>What<th>First\n",
            escape(&t.name)
        );
        for d in &t.differences {
            put!(
                page,
                "<tr><td class=n>{}<td>{}<td>{}\n",
                grouped(d.count),
                escape(&d.reason),
                escape(&d.first)
            );
        }
        put!(page, "</table></div>\n");
    }
}

fn checks(page: &mut String, rows: &[Check]) {
    put!(
        page,
        "<h2>Checks</h2><div class=scroll><table>\
         <tr><th>Rule<th>Judge<th>Tap<th class=n>Checked<th class=n>Failed\n"
    );
    for c in rows {
        put!(
            page,
            "<tr><td>{}<td>{}<td>{}",
            escape(&c.rule),
            escape(&c.judge),
            escape(&c.tap)
        );
        if c.checked == 0 {
            put!(page, "<td class=\"n none\">never");
        } else {
            put!(page, "<td class=n>{}", grouped(c.checked));
        }
        put!(page, "{}\n", failures(c.failed));
    }
    put!(page, "</table></div>\n");
}

/// A plot with its title and the names of its series.
fn figure<'a>(
    page: &mut String,
    title: &str,
    svg: &str,
    series: impl Iterator<Item = (&'a str, String)>,
) {
    put!(
        page,
        "<h2>{title}</h2><div class=plot>{svg}<div class=legend>"
    );
    for (i, (name, note)) in series.enumerate() {
        put!(
            page,
            "<span><i style=\"background:{}\"></i>{}{}</span>",
            plot::css_colour(i),
            escape(name),
            escape(&note)
        );
    }
    put!(page, "</div></div>\n");
}

/// The whole page.
///
/// # Errors
///
/// If a plot cannot be drawn.
pub(super) fn page(results: &Results, stats: &Stats) -> Result<String, Error> {
    let mut page = String::new();
    head(&mut page, results);
    if !results.violations.is_empty() {
        put!(page, "<h2>Violations</h2>\n");
        let shown = violations(&mut page, &results.violations);
        if results.summary.failed > shown {
            let more = results.summary.failed - shown;
            put!(
                page,
                "<div>{} more of these kinds: summary.json lists them as far as they are kept.</div>\n",
                grouped(more)
            );
        }
    }
    if !results.summary.traces.is_empty() {
        traces(&mut page, &results.summary.traces);
    }
    checks(&mut page, &results.checks);
    if !stats.taps.is_empty() {
        figure(
            &mut page,
            "Throughput: TLPs per 10\u{2009}000 cycles",
            &plot::throughput(stats)?,
            stats.taps.iter().map(|t| (t.tap, String::new())),
        );
        figure(
            &mut page,
            "TLPs by kind",
            &plot::kinds_by_tap(&stats.taps)?,
            (plot::kinds(&stats.taps).into_iter()).map(|k| (k, String::new())),
        );
    }
    if !stats.latencies.is_empty() {
        figure(
            &mut page,
            "Latency in cycles",
            &plot::latencies(&stats.latencies)?,
            stats.latencies.iter().map(|(name, h)| {
                let mean = h.sum / h.count.max(1);
                (*name, format!(" (mean {mean}, at most {})", h.max))
            }),
        );
    }
    page.push_str("</html>\n");
    Ok(page)
}
