//! One test for each statement of the specification that `docs/ledger` lists and no other test shows.

mod ats;
mod byte_order;
mod caching;
mod commands;
mod context_checks;
mod control;
mod counters;
mod debug_registers;
mod device_contexts;
mod events;
mod extensions;
mod fault_queue;
mod general;
mod interrupt_files;
mod interrupts;
mod message_config;
mod page_requests;
mod page_tables;
mod process_context_fields;
mod process_contexts;
mod queue;
mod queue_bases;
mod refused_page_requests;
mod registers;
mod walks;
