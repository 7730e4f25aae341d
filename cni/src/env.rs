//! The environment: what the runtime says beside standard input (CNI specification, section 2, "Parameters").

use std::ffi::OsString;

use netconf::OnlyIf;

/// A variable is missing or wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    /// Reported all at once.
    #[error("read the environment: {} not set; the runtime must set them, see the CNI specification, section 2", variables.join(", "))]
    Missing { variables: Vec<&'static str> },
    /// The value breaks a rule.
    #[error("read the environment: {variable}=`{value}` is not valid; {rule}")]
    Invalid {
        variable: &'static str,
        /// Escaped.
        value: String,
        rule: &'static str,
    },
    /// `CNI_COMMAND` names no verb of ours.
    #[error(
        "read the environment: CNI_COMMAND `{command}` is not supported; this plug-in knows {}, VERSION",
        known.join(", ")
    )]
    Command {
        command: String,
        known: Vec<&'static str>,
    },
}

pub(crate) const COMMAND: &str = "CNI_COMMAND";
pub(crate) const CONTAINER_ID: &str = "CNI_CONTAINERID";
pub(crate) const NETNS: &str = "CNI_NETNS";
pub(crate) const IFNAME: &str = "CNI_IFNAME";
pub(crate) const ARGS: &str = "CNI_ARGS";
pub(crate) const PATH: &str = "CNI_PATH";
/// Ours, and no runtime's to set.
pub(crate) const ONLY_IF: &str = OnlyIf::VARIABLE;

/// A verb, other than VERSION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Check,
    Del,
    Gc,
    Status,
    /// Azure's, for CNS: prints every attachment.
    EndpointState,
    /// Azure's: takes over routes that CNS has changed.
    Update,
}

impl Command {
    /// As in `CNI_COMMAND`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::EndpointState => "GET_ENDPOINT_STATE",
            Self::Update => "UPDATE",
        }
    }

    /// The one of `known` that has this name; case and spaces count.
    pub(crate) fn parse(text: &str, known: &[Self]) -> Result<Self, EnvError> {
        known
            .iter()
            .copied()
            .find(|command| command.as_str() == text)
            .ok_or_else(|| EnvError::Command {
                command: escape(text),
                known: known.iter().map(|command| command.as_str()).collect(),
            })
    }

    /// Whether it works on one attachment, which the environment names.
    fn has_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Check | Self::Del)
    }

    /// Whether there is a configuration on standard input. CNS sends none.
    pub(crate) fn has_stdin(self) -> bool {
        self != Self::EndpointState
    }

    /// Whether its successes are nobody's concern: runtimes ask many times a minute.
    pub(crate) fn is_poll(self) -> bool {
        matches!(self, Self::Status | Self::EndpointState)
    }
}

/// The variables of a verb, validated. One that is not set is empty, and so are those of an attachment when the verb has none;
/// UPDATE may say of which container it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) container_id: String,
    pub(crate) netns: String,
    pub(crate) ifname: String,
    pub(crate) args: String,
    pub(crate) path: String,
    /// What this DEL insists on; a runtime's on nothing.
    pub(crate) only_if: Option<OnlyIf>,
}

impl Environment {
    /// Reads what `look_up` knows; `required` variables must be there.
    pub(crate) fn read(
        command: Command,
        required: &[&'static str],
        look_up: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EnvError> {
        let missing: Vec<&'static str> = required
            .iter()
            .copied()
            .filter(|variable| look_up(variable).is_none_or(|value| value.is_empty()))
            .collect();
        if !missing.is_empty() {
            return Err(EnvError::Missing { variables: missing });
        }
        let text = |variable| match look_up(variable).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(text)) => Ok(text),
            Some(Err(bytes)) => Err(EnvError::Invalid {
                variable,
                value: escape(&bytes.to_string_lossy()),
                rule: "it must be UTF-8",
            }),
        };
        let checked = |variable, valid: fn(&str) -> bool, rule| {
            let value = text(variable)?;
            if valid(&value) {
                return Ok(value);
            }
            Err(EnvError::Invalid {
                variable,
                value: escape(&value),
                rule,
            })
        };
        if !command.has_attachment() {
            return Ok(Self {
                container_id: if command == Command::Update {
                    text(CONTAINER_ID)?
                } else {
                    String::new()
                },
                args: text(ARGS)?,
                path: text(PATH)?,
                ..Self::default()
            });
        }
        Ok(Self {
            container_id: checked(
                CONTAINER_ID,
                netconf::names::is_identifier,
                "it must start with a letter or digit and go on with letters, digits, `_`, `.` and `-`",
            )?,
            ifname: checked(
                IFNAME,
                netconf::names::is_interface_name,
                "it must be 1 to 15 letters, digits, `.`, `_`, `-`, `(` and `)`, and not `.` or `..`",
            )?,
            netns: text(NETNS)?,
            args: text(ARGS)?,
            path: text(PATH)?,
            only_if: if command == Command::Del {
                OnlyIf::parse(&checked(
                    ONLY_IF,
                    |text| text.is_empty() || OnlyIf::parse(text).is_some(),
                    "it is for azure-vnet-loader and vnetctl alone, gone or not-alive; unset it",
                )?)
            } else {
                None
            },
        })
    }
}

/// One printable line of at most 80 characters.
fn escape(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).take(80).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn read(set: &[(&str, &[u8])]) -> Result<Environment, EnvError> {
        let variables: BTreeMap<&str, &[u8]> = set.iter().copied().collect();
        Environment::read(Command::Del, &[CONTAINER_ID, NETNS, IFNAME, PATH], |name| {
            variables
                .get(name)
                .map(|value| OsString::from_vec(value.to_vec()))
        })
    }

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let message = read(&[(PATH, b"/x")]).unwrap_err().to_string();
        for name in [CONTAINER_ID, NETNS, IFNAME] {
            assert!(message.contains(name), "{message}");
        }
        assert!(!message.contains(PATH), "{message}");
    }

    #[test]
    fn what_is_for_the_loaders_del_alone_means_nothing_to_add() {
        let set = |name: &str| Some(if name == ONLY_IF { "dead" } else { "x" }.into());
        let add = Environment::read(Command::Add, &[], set).unwrap();
        assert_eq!(add.only_if, None);
        Environment::read(Command::Del, &[], set).unwrap_err();
    }

    #[test]
    fn a_value_that_breaks_a_rule_is_named_and_escaped() {
        for (variable, value, shown) in [
            (CONTAINER_ID, b"a\nb".as_slice(), "`a\\nb`"),
            (IFNAME, b"a;b", "`a;b`"),
            (IFNAME, b"eth\xff", "CNI_IFNAME"),
            (NETNS, b"/\xff", "CNI_NETNS"),
            (ONLY_IF, b"dead", "`dead`"),
        ] {
            let good: [(&str, &[u8]); 5] = [
                (CONTAINER_ID, b"c1"),
                (NETNS, b"/n"),
                (IFNAME, b"eth0"),
                (PATH, b"/p"),
                (ONLY_IF, b""),
            ];
            let set = good.map(|(name, old)| (name, if name == variable { value } else { old }));
            let message = read(&set).unwrap_err().to_string();
            assert!(message.contains(shown), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn only_the_exact_verbs_are_known() {
        let known = [Command::Add, Command::Gc];
        assert_eq!(Command::parse("ADD", &known).unwrap(), Command::Add);
        for bad in ["add", "ADD ", "", "UPDATE", "GET_ENDPOINT_STATE"] {
            let message = Command::parse(bad, &known).unwrap_err().to_string();
            assert!(message.contains("CNI_COMMAND"), "{message}");
            assert!(message.ends_with("knows ADD, GC, VERSION"), "{message}");
        }
    }

    #[test]
    fn a_verb_without_attachment_does_not_mind_what_is_said_about_one() {
        for verb in [Command::Gc, Command::Status, Command::EndpointState] {
            let said = Environment::read(verb, &[], |_| Some("/x".into())).unwrap();
            assert_eq!((&*said.container_id, &*said.path), ("", "/x"));
        }
    }
}
