//! The port list of an IOMMU: `docs/rtl-ports.md`. Every model that has these ports is an [`IommuTop`].

use crate::Top;

/// Inputs, by the names of the ports.
pub trait Inputs {
    /// `rst_ni`.
    fn set_rst_ni(&mut self, value: bool);
    /// `config_i`, where the top has one.
    fn set_config_i(&mut self, value: u32);
    /// `tr_req_valid_i`.
    fn set_tr_req_valid_i(&mut self, value: bool);
    /// `tr_req_i`.
    fn tr_req_i(&mut self) -> &mut [u32];
    /// `mem_req_ready_i`.
    fn set_mem_req_ready_i(&mut self, value: bool);
    /// `mem_rsp_valid_i`.
    fn set_mem_rsp_valid_i(&mut self, value: bool);
    /// `mem_rsp_i`.
    fn mem_rsp_i(&mut self) -> &mut [u32];
    /// `mrif_req_valid_i`.
    fn set_mrif_req_valid_i(&mut self, value: bool);
    /// `mrif_req_i`.
    fn mrif_req_i(&mut self) -> &mut [u32];
    /// `msg_in_valid_i`.
    fn set_msg_in_valid_i(&mut self, value: bool);
    /// `msg_in_i`.
    fn msg_in_i(&mut self) -> &mut [u32];
    /// `msg_out_ready_i`.
    fn set_msg_out_ready_i(&mut self, value: bool);
    /// `reg_req_*`: an access in this cycle as (write, address, byte enables, data), or none.
    fn set_reg_req(&mut self, access: Option<(bool, u32, u32, u64)>);
    /// `drain_ack_i`.
    fn set_drain_ack_i(&mut self, value: bool);
}

/// Outputs, by the names of the ports.
pub trait Outputs {
    /// `tr_req_ready_o`.
    fn tr_req_ready_o(&self) -> bool;
    /// `tr_rsp_o` while `tr_rsp_valid_o`.
    fn tr_rsp(&self) -> Option<&[u32]>;
    /// `mem_req_o` while `mem_req_valid_o`.
    fn mem_req(&self) -> Option<&[u32]>;
    /// `mrif_req_ready_o`.
    fn mrif_req_ready_o(&self) -> bool;
    /// `mrif_done_o`.
    fn mrif_done_o(&self) -> bool;
    /// `msg_in_ready_o`.
    fn msg_in_ready_o(&self) -> bool;
    /// `msg_out_o` while `msg_out_valid_o`.
    fn msg_out(&self) -> Option<&[u32]>;
    /// `wsi_o`.
    fn wsi_o(&self) -> u32;
    /// `reg_rsp_rdata_o` while `reg_rsp_valid_o`.
    fn reg_rsp(&self) -> Option<u64>;
    /// `drain_req_o`.
    fn drain_req_o(&self) -> bool;
}

/// A top module with the ports of an IOMMU.
pub trait IommuTop: Top<In: Inputs, Out: Outputs> {}

impl<T: Top<In: Inputs, Out: Outputs>> IommuTop for T {}

/// Implements [`Inputs`] and [`Outputs`] for a model in [`crate::ports`]; the build script names them.
macro_rules! iommu_ports {
    ($module:ident $(, $config:ident)?) => {
        impl $crate::iommu::Inputs for $crate::ports::$module::In {
            fn set_rst_ni(&mut self, value: bool) {
                Self::set_rst_ni(self, value);
            }
            #[allow(unused_variables, reason = "not every top has the strap")]
            fn set_config_i(&mut self, value: u32) {
                $( Self::$config(self, value); )?
            }
            fn set_tr_req_valid_i(&mut self, value: bool) {
                Self::set_tr_req_valid_i(self, value);
            }
            fn tr_req_i(&mut self) -> &mut [u32] {
                Self::tr_req_i(self)
            }
            fn set_mem_req_ready_i(&mut self, value: bool) {
                Self::set_mem_req_ready_i(self, value);
            }
            fn set_mem_rsp_valid_i(&mut self, value: bool) {
                Self::set_mem_rsp_valid_i(self, value);
            }
            fn mem_rsp_i(&mut self) -> &mut [u32] {
                Self::mem_rsp_i(self)
            }
            fn set_mrif_req_valid_i(&mut self, value: bool) {
                Self::set_mrif_req_valid_i(self, value);
            }
            fn mrif_req_i(&mut self) -> &mut [u32] {
                Self::mrif_req_i(self)
            }
            fn set_msg_in_valid_i(&mut self, value: bool) {
                Self::set_msg_in_valid_i(self, value);
            }
            fn msg_in_i(&mut self) -> &mut [u32] {
                Self::msg_in_i(self)
            }
            fn set_msg_out_ready_i(&mut self, value: bool) {
                Self::set_msg_out_ready_i(self, value);
            }
            fn set_reg_req(&mut self, access: Option<(bool, u32, u32, u64)>) {
                self.set_reg_req_valid_i(access.is_some());
                if let Some((write, address, enables, data)) = access {
                    self.set_reg_req_write_i(write);
                    self.set_reg_req_addr_i(address);
                    self.set_reg_req_be_i(enables);
                    self.set_reg_req_wdata_i(data);
                }
            }
            fn set_drain_ack_i(&mut self, value: bool) {
                Self::set_drain_ack_i(self, value);
            }
        }

        impl $crate::iommu::Outputs for $crate::ports::$module::Out {
            fn tr_req_ready_o(&self) -> bool {
                Self::tr_req_ready_o(self)
            }
            fn tr_rsp(&self) -> Option<&[u32]> {
                self.tr_rsp_valid_o().then(|| &self.tr_rsp_o()[..])
            }
            fn mem_req(&self) -> Option<&[u32]> {
                self.mem_req_valid_o().then(|| &self.mem_req_o()[..])
            }
            fn mrif_req_ready_o(&self) -> bool {
                Self::mrif_req_ready_o(self)
            }
            fn mrif_done_o(&self) -> bool {
                Self::mrif_done_o(self)
            }
            fn msg_in_ready_o(&self) -> bool {
                Self::msg_in_ready_o(self)
            }
            fn msg_out(&self) -> Option<&[u32]> {
                self.msg_out_valid_o().then(|| &self.msg_out_o()[..])
            }
            fn wsi_o(&self) -> u32 {
                Self::wsi_o(self)
            }
            fn reg_rsp(&self) -> Option<u64> {
                self.reg_rsp_valid_o().then(|| self.reg_rsp_rdata_o())
            }
            fn drain_req_o(&self) -> bool {
                Self::drain_req_o(self)
            }
        }
    };
}
pub(crate) use iommu_ports;
