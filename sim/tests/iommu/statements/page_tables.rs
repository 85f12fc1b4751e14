//! What the page tables of the privileged specification demand.
