//! Chapter 1, the debug interface, and what chapters 6 and 7 say.
