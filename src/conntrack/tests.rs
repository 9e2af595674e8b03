//! The tracker as a whole: packets in, states and entries out.
