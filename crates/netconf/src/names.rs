//! What is a valid network name, container ID and interface name.

/// What the kernel takes: `IFNAMSIZ` without the final zero.
const INTERFACE_NAME_BYTES: usize = 15;

/// The specification's rule for container IDs and network names.
pub fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// An interface name by Azure's rule, which is narrower than the kernel's.
pub fn is_interface_name(text: &str) -> bool {
    (1..=INTERFACE_NAME_BYTES).contains(&text.len())
        && !matches!(text, "." | "..")
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-()".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_interface_names_follow_the_rules() {
        for good in ["a", "0-_.x", &"x".repeat(4096)] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "-x", ".x", "_x", "a b", "a/b", "../x", "é", "a\n"] {
            assert!(!is_identifier(bad), "{bad}");
        }
        for good in ["eth0", "a", "abcdefghijklmno", "eth0.7", "x(y)"] {
            assert!(is_interface_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a;b",
            "abcdefghijklmnop",
            "é",
        ] {
            assert!(!is_interface_name(bad), "{bad}");
        }
    }
}
