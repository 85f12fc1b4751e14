//! Where PCI Express takes a TLP: ports, windows and Access Control Services as software has
//! configured them (PCIe 6.0 §2.2.4, §6.12, §7.5.1.3, §7.7.11).

mod config;
mod topology;

use tlproof_pcie::{Bdf, CplStatus, Head, tlp::AddressType, tlp::fmt_type};

use config::{Config, EGRESS_VECTOR, acs};
pub use topology::{EndpointPlace, EndpointPort, Topology};

/// A function of the tree.
#[derive(Clone, Copy)]
enum Function {
    Iommu,
    RootPort(u8),
    Upstream,
    Downstream(u8),
    Endpoint(u8),
}

/// The fate of a TLP at the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// It enters this root port.
    RootPort(u8),
    /// It reaches this endpoint.
    Endpoint(u8),
    /// A function inside the switch takes it (configuration).
    SwitchFunction,
    /// It goes no further; a non-posted request is answered with this status.
    Refused(CplStatus, &'static str),
}

/// An ACS violation is answered with CA (PCIe 6.0 §6.12.4).
const fn acs_violation(clause: &'static str) -> Hop {
    Hop::Refused(CplStatus::CompleterAbort, clause)
}

/// How a completer must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Success,
    Unsupported,
    Either,
}

/// Shadow of the configuration that software has written.
pub(crate) struct Fabric {
    topology: Topology,
    iommu: Config,
    root_ports: Vec<Config>,
    downstream: Vec<Config>,
    upstream: Config,
    endpoints: Vec<Config>,
}

impl Fabric {
    pub fn new(topology: Topology) -> Self {
        let downstream = topology.switch.map_or(0, |s| usize::from(s.1));
        Self {
            root_ports: vec![Config::default(); topology.root_ports.len()],
            downstream: vec![Config::default(); downstream],
            upstream: Config::default(),
            endpoints: vec![Config::default(); topology.endpoints.len()],
            iommu: Config::default(),
            topology,
        }
    }

    pub fn config_written(&mut self, bdf: Bdf, reg: u16, size: u8, value: u32) {
        let Some(function) = self.function(bdf) else {
            return;
        };
        let config = match function {
            Function::Iommu => &mut self.iommu,
            Function::RootPort(n) => &mut self.root_ports[usize::from(n)],
            Function::Upstream => &mut self.upstream,
            Function::Downstream(n) => &mut self.downstream[usize::from(n)],
            Function::Endpoint(n) => &mut self.endpoints[usize::from(n)],
        };
        config.write(reg, size, value);
    }

    fn function(&self, bdf: Bdf) -> Option<Function> {
        if bdf == self.topology.iommu {
            return Some(Function::Iommu);
        }
        if let Some(n) = self.topology.root_ports.iter().position(|r| *r == bdf) {
            return Some(Function::RootPort(n as u8));
        }
        if let Some((rp, _)) = self.topology.switch {
            if self.switch_upstream(rp) == Some(bdf) {
                return Some(Function::Upstream);
            }
            let bus = self.upstream.secondary();
            if bus != 0
                && bdf.bus() == bus
                && bdf.function() == 0
                && usize::from(bdf.device()) < self.downstream.len()
            {
                return Some(Function::Downstream(bdf.device()));
            }
        }
        self.endpoint_of(bdf).map(Function::Endpoint)
    }

    fn switch_upstream(&self, root_port: u8) -> Option<Bdf> {
        let bus = self.root_ports.get(usize::from(root_port))?.secondary();
        (bus != 0).then(|| Bdf::new(bus, 0, 0))
    }

    /// Endpoints that there are.
    pub fn endpoints(&self) -> u8 {
        self.topology.endpoints.len() as u8
    }

    /// Requester ID of an endpoint; `None` before enumeration.
    pub fn requester(&self, endpoint: u8) -> Option<Bdf> {
        let place = self.topology.endpoints.get(usize::from(endpoint))?;
        let port = match place.port {
            EndpointPort::RootPort(n) => self.root_ports.get(usize::from(n))?,
            EndpointPort::Switch { downstream, .. } => {
                self.downstream.get(usize::from(downstream))?
            }
        };
        let bus = port.secondary();
        (bus != 0).then(|| Bdf::new(bus, 0, 0))
    }

    fn endpoint_of(&self, bdf: Bdf) -> Option<u8> {
        (0..self.endpoints()).find(|n| self.requester(*n) == Some(bdf))
    }

    fn at_port(&self, port: EndpointPort) -> Option<u8> {
        let at = self.topology.endpoints.iter().position(|e| e.port == port);
        at.map(|n| n as u8)
    }

    /// Whether a bridge function has this ID: a port that may complete on behalf of the fabric.
    pub fn is_port(&self, bdf: Bdf) -> bool {
        bdf.bus() == 0
            || matches!(
                self.function(bdf),
                Some(Function::Upstream | Function::Downstream(_))
            )
    }

    /// Max_Payload_Size of an endpoint in bytes.
    pub fn max_payload(&self, endpoint: u8) -> u64 {
        self.endpoints[usize::from(endpoint)].max_payload()
    }

    /// Max_Payload_Size of a root port in bytes.
    pub fn root_max_payload(&self, root_port: u8) -> u64 {
        self.root_ports[usize::from(root_port)].max_payload()
    }

    /// Max_Read_Request_Size of an endpoint in bytes.
    pub fn max_read(&self, endpoint: u8) -> u64 {
        self.endpoints[usize::from(endpoint)].max_read()
    }

    /// The root port whose window holds a bus address.
    pub fn root_port_for(&self, addr: u64) -> Option<u8> {
        let at = self.root_ports.iter().position(|c| c.window(addr));
        at.map(|n| n as u8)
    }

    /// The root port below which a bus is, and whether the bus is its secondary one.
    pub fn root_port_for_bus(&self, bus: u8) -> Option<(u8, bool)> {
        let at = self.root_ports.iter().position(|c| c.holds_bus(bus))?;
        Some((at as u8, self.root_ports[at].secondary() == bus))
    }

    /// Whether the IOMMU's registers are at a physical address.
    pub fn iommu_registers(&self, addr: u64) -> bool {
        self.iommu.bar(0, 0x1000, addr)
    }

    /// What a port does with a request from below before it routes it.
    fn ingress(port: &Config, head: &Head) -> Option<Hop> {
        if port.acs(acs::SOURCE_VALIDATION) && !port.holds_bus(head.requester().bus()) {
            return Some(acs_violation("PCIe 6.0 §6.12.1.1, ACS Source Validation"));
        }
        if port.acs(acs::TRANSLATION_BLOCKING)
            && head.is_mem()
            && head.at() != AddressType::Untranslated
        {
            return Some(acs_violation(
                "PCIe 6.0 §6.12.1.1, ACS Translation Blocking",
            ));
        }
        if head.is_mem() && !port.bus_master() {
            return Some(Hop::Refused(
                CplStatus::UnsupportedRequest,
                "PCIe 6.0 §7.5.1.1.3, Bus Master Enable",
            ));
        }
        None
    }

    /// Where a TLP goes that leaves an endpoint.
    pub fn above_endpoint(&self, endpoint: u8, head: &Head) -> Hop {
        match self.topology.endpoints[usize::from(endpoint)].port {
            EndpointPort::RootPort(n) => Hop::RootPort(n),
            EndpointPort::Switch {
                root_port,
                downstream,
            } => self.through_switch(root_port, downstream, head),
        }
    }

    fn through_switch(&self, root_port: u8, ingress: u8, head: &Head) -> Hop {
        let port = &self.downstream[usize::from(ingress)];
        let up = Hop::RootPort(root_port);
        let below = |egress: u8| {
            let place = EndpointPort::Switch {
                root_port,
                downstream: egress,
            };
            self.at_port(place).map_or(
                Hop::Refused(CplStatus::UnsupportedRequest, "PCIe 6.0 §2.3.1"),
                Hop::Endpoint,
            )
        };
        if head.is_cpl() {
            let bus = head.requester().bus();
            let Some(egress) = self.downstream.iter().position(|d| d.holds_bus(bus)) else {
                return up;
            };
            // Only completions without Relaxed Ordering are redirected (PCIe 6.0 §6.12.1.1).
            if port.acs(acs::COMPLETION_REDIRECT) && !head.relaxed() {
                return up;
            }
            return below(egress as u8);
        }
        if let Some(hop) = Self::ingress(port, head) {
            return hop;
        }
        if !head.is_mem() {
            return up;
        }
        let addr = head.addr().0;
        if let Some(egress) = self.downstream.iter().position(|d| d.window(addr)) {
            let egress = egress as u8;
            if egress == ingress {
                if port.acs(acs::UPSTREAM_FORWARDING) {
                    return up;
                }
                return Hop::Refused(
                    CplStatus::UnsupportedRequest,
                    "PCIe 6.0 §6.12.1.1, ACS Upstream Forwarding",
                );
            }
            let direct = port.acs(acs::DIRECT_TRANSLATED) && head.at() == AddressType::Translated;
            if direct {
                return below(egress);
            }
            let vector = port.space[EGRESS_VECTOR] >> egress & 1 != 0;
            let redirect = port.acs(acs::REQUEST_REDIRECT);
            if port.acs(acs::EGRESS_CONTROL) {
                if vector && redirect {
                    return up;
                }
                if vector {
                    return acs_violation("PCIe 6.0 §6.12.1.1, ACS P2P Egress Control");
                }
            } else if redirect {
                return up;
            }
            return below(egress);
        }
        if self.upstream.window(addr) {
            return Hop::Refused(
                CplStatus::UnsupportedRequest,
                "PCIe 6.0 §7.5.1.3: inside the upstream port's window and nobody's below",
            );
        }
        if !self.upstream.bus_master() {
            return Hop::Refused(
                CplStatus::UnsupportedRequest,
                "PCIe 6.0 §7.5.1.1.3, Bus Master Enable",
            );
        }
        up
    }

    /// Whether a root port refuses a request from below before the bridge translates it.
    pub fn at_root_port(&self, root_port: u8, head: &Head) -> Option<Hop> {
        Self::ingress(&self.root_ports[usize::from(root_port)], head)
    }

    /// Whether a root port forbids a translated request to go to another root port. Request
    /// Redirect changes nothing: the root complex has seen the request (PCIe 6.0 §6.12.3).
    pub fn root_port_blocks(&self, from: u8, to: u8) -> bool {
        let port = &self.root_ports[usize::from(from)];
        from != to
            && port.acs(acs::EGRESS_CONTROL)
            && !port.acs(acs::REQUEST_REDIRECT)
            && port.space[EGRESS_VECTOR] >> to & 1 != 0
    }

    /// Where a TLP goes that leaves a root port downwards, and the header it arrives with.
    pub fn below_root_port(&self, root_port: u8, head: &Head) -> (Hop, Head) {
        let nobody = Hop::Refused(CplStatus::UnsupportedRequest, "PCIe 6.0 §2.3.1");
        let on_link = self.at_port(EndpointPort::RootPort(root_port));
        if let Some(endpoint) = on_link {
            return (Hop::Endpoint(endpoint), *head);
        }
        if self.topology.switch.is_none_or(|(rp, _)| rp != root_port) {
            return (nobody, *head);
        }
        let below = |egress: usize| {
            let place = EndpointPort::Switch {
                root_port,
                downstream: egress as u8,
            };
            self.at_port(place).map_or(nobody, Hop::Endpoint)
        };
        if head.is_cpl() {
            let bus = head.requester().bus();
            let at = self.downstream.iter().position(|d| d.holds_bus(bus));
            return (at.map_or(nobody, below), *head);
        }
        if head.is_cfg() {
            return self.config_request(head, below);
        }
        if !head.is_mem() || !self.upstream.window(head.addr().0) {
            return (nobody, *head);
        }
        let at = self.downstream.iter().position(|d| d.window(head.addr().0));
        (at.map_or(nobody, below), *head)
    }

    /// Type 1 becomes Type 0 on the bus it names (PCIe 6.0 §7.3.3).
    fn config_request(&self, head: &Head, below: impl Fn(usize) -> Hop) -> (Hop, Head) {
        let type0 = matches!(head.fmt_type(), fmt_type::CFGRD0 | fmt_type::CFGWR0);
        let bus = head.target().bus();
        if type0 || bus == self.upstream.secondary() {
            return (Hop::SwitchFunction, *head);
        }
        let Some(at) = self.downstream.iter().position(|d| d.holds_bus(bus)) else {
            return (
                Hop::Refused(CplStatus::UnsupportedRequest, "PCIe 6.0 §7.3.3"),
                *head,
            );
        };
        let mut arrived = *head;
        if self.downstream[at].secondary() == bus {
            arrived.hdr[0] &= !(1 << 24);
        }
        (below(at), arrived)
    }

    /// Whether an address lies in a BAR of an endpoint other than `endpoint`.
    pub fn is_peer_bar(&self, endpoint: u8, addr: u64) -> bool {
        self.endpoints.iter().enumerate().any(|(n, e)| {
            n != usize::from(endpoint)
                && (e.bar(2, self.topology.bars[1], addr) || e.bar(0, self.topology.bars[0], addr))
        })
    }

    /// How an endpoint must answer a memory read.
    pub fn endpoint_answer(&self, endpoint: u8, head: &Head) -> Answer {
        let config = &self.endpoints[usize::from(endpoint)];
        let addr = head.addr().0;
        if head.is_cfg() {
            return Answer::Either;
        }
        if config.bar(2, self.topology.bars[1], addr) {
            return Answer::Success;
        }
        if config.bar(0, self.topology.bars[0], addr) {
            return Answer::Either;
        }
        Answer::Unsupported
    }
}
