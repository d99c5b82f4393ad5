//! Names the layers that a merged row comes from.

use crate::version::Origin;

/// The layers of a merged row, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers(pub u8);

impl Layers {
    pub const BATCH: Layers = Layers(1);
    pub const SPEED: Layers = Layers(2);
    /// Rows of a version that the speed layer computed.
    pub const CHECKPOINT: Layers = Layers(4);

    /// Returns the layer of rows of a version with this origin.
    pub fn of_version(origin: Origin) -> Layers {
        match origin {
            Origin::Batch => Layers::BATCH,
            Origin::Speed => Layers::CHECKPOINT,
        }
    }

    /// Returns whether all of it is in a version.
    pub fn is_of_version(self) -> bool {
        self.0 & Layers::SPEED.0 == 0
    }

    /// Returns whether batch computed all of it.
    pub fn is_exact(self) -> bool {
        self.0 & (Layers::SPEED.0 | Layers::CHECKPOINT.0) == 0
    }

    /// `batch`, `speed` or `merged`.
    pub fn name(self) -> &'static str {
        match (self.0 & Layers::BATCH.0 != 0, self.is_exact()) {
            (true, true) => "batch",
            (false, false) => "speed",
            _ => "merged",
        }
    }
}
