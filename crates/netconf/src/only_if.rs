//! What a DEL insists on that is no runtime's. Not a key of the configuration, which anybody might set for good.

/// Whoever found an attachment dead asks for this DEL, which does nothing when an ADD has made the attachment anew since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnlyIf {
    /// The pod's namespace is gone.
    Gone,
    /// It is not seen to live: an operator's wish.
    NotAlive,
}

impl OnlyIf {
    /// The environment variable that says so.
    pub const VARIABLE: &str = "AZURE_VNET_ONLY_IF";

    /// Its value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::NotAlive => "not-alive",
        }
    }

    /// The one with this value.
    pub fn parse(text: &str) -> Option<Self> {
        let known = [Self::Gone, Self::NotAlive];
        known.into_iter().find(|one| one.as_str() == text)
    }

    /// Whether to go on with a pod of which this is known; `None` when nobody can tell.
    pub fn allows(self, lives: Option<bool>) -> Option<bool> {
        match (self, lives) {
            (_, Some(lives)) => Some(!lives),
            (Self::NotAlive, None) => Some(true),
            (Self::Gone, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_freed_only_if_its_pod_is_gone_stays_when_nobody_can_tell() {
        let [gone, not_alive] = ["gone", "not-alive"].map(|text| OnlyIf::parse(text).unwrap());
        for (lives, allows) in [
            (Some(true), [Some(false), Some(false)]),
            (Some(false), [Some(true), Some(true)]),
            (None, [None, Some(true)]),
        ] {
            assert_eq!(
                [gone, not_alive].map(|only_if| only_if.allows(lives)),
                allows
            );
        }
    }
}
