//! Which flows does a node's connection tracking know?

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::node::Node;

/// A flow in the kernel's connection tracking, as its first packet was before any translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    /// The whole line of `conntrack -L`.
    pub line: String,
}

impl Tracked {
    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.parse().ok())
        };
        Some(Self {
            src: field("src=")?,
            dst: field("dst=")?,
            line: line.to_owned(),
        })
    }

    /// Whether one end is `addr`.
    pub fn has(&self, addr: Ipv4Addr) -> bool {
        self.src == addr || self.dst == addr
    }
}

impl Node {
    /// Every flow that the node's connection tracking knows.
    pub fn tracked(&self) -> Result<Vec<Tracked>> {
        Ok(self
            .exec(&["conntrack", "-L"])?
            .lines()
            .filter_map(Tracked::parse)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_direction_is_what_counts() {
        let line = "tcp 6 119 TIME_WAIT src=10.240.1.10 dst=203.0.113.10 sport=4 dport=80 \
                    src=203.0.113.10 dst=10.240.0.4 sport=80 dport=4 [ASSURED] mark=0 use=1";
        let flow = Tracked::parse(line).unwrap();
        assert_eq!(
            (flow.src.octets(), flow.dst.octets()),
            ([10, 240, 1, 10], [203, 0, 113, 10])
        );
        assert!(
            !flow.has(Ipv4Addr::new(10, 240, 0, 4)),
            "the translated address is no end"
        );
    }
}
