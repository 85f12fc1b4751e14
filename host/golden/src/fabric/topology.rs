//! The tree of ports and endpoints.

use serde::Serialize;
use tlproof_pcie::Bdf;

/// The port that an endpoint hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum EndpointPort {
    /// A root port.
    RootPort(u8),
    /// A downstream port of the switch below a root port.
    Switch {
        /// The root port.
        root_port: u8,
        /// Device number of the downstream port.
        downstream: u8,
    },
}

/// One endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct EndpointPlace {
    /// The port above it.
    pub port: EndpointPort,
}

/// The static tree. Bus numbers are what enumeration writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Endpoints, by the number of their taps.
    pub endpoints: Vec<EndpointPlace>,
    /// Root ports, the function numbers on bus 0.
    pub root_ports: Vec<Bdf>,
    /// The IOMMU's function.
    pub iommu: Bdf,
    /// The root port above the switch, and the number of its downstream ports.
    pub switch: Option<(u8, u8)>,
    /// Sizes of BAR 0 and BAR 2 of an endpoint in bytes.
    pub bars: [u64; 2],
}

impl Default for Topology {
    /// The tree of `sim_top`: a switch with endpoints 0 and 1 below 00:02.0, endpoint 2 below
    /// 00:03.0.
    fn default() -> Self {
        let below = |downstream| EndpointPort::Switch {
            root_port: 0,
            downstream,
        };
        Self {
            endpoints: [below(0), below(1), EndpointPort::RootPort(1)]
                .map(|port| EndpointPlace { port })
                .to_vec(),
            root_ports: vec![Bdf::new(0, 2, 0), Bdf::new(0, 3, 0)],
            iommu: Bdf::new(0, 1, 0),
            switch: Some((0, 2)),
            bars: [0x4000, 0x10_0000],
        }
    }
}
