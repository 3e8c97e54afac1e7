//! File 360 in domain terms, and the drivers that reach it.

pub mod model;
