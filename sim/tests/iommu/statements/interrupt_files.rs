//! Memory-resident interrupt files: AIA §9.3.
