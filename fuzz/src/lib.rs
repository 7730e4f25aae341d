//! What the fuzz targets share with the data path's own tests: a case made from bytes, and what must hold for it.

#[path = "../../crates/datapath/tests/support/case.rs"]
mod case;

pub use case::{Hook, run};
