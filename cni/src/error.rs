//! The plug-ins' error: what went wrong, its CNI code, and the object that the runtime reads.

use serde_json::{Value, json};

use netconf::{Version, code};

/// Everything that can go wrong in a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Environment(#[from] crate::env::EnvError),
    #[error(transparent)]
    Args(#[from] netconf::ArgsError),
    #[error(transparent)]
    Netconf(#[from] netconf::NetconfError),
    #[error(transparent)]
    Netns(#[from] crate::netns::NetnsError),
    #[error(transparent)]
    Lock(#[from] crate::lock::LockError),
    #[error(transparent)]
    State(#[from] rpc::StateError),
    #[error(transparent)]
    Loader(#[from] crate::loader::LoaderError),
    #[error(transparent)]
    Delegate(#[from] crate::delegate::DelegateError),
    /// The address is still taken: the runtime shall ask for DEL again. The first words are Azure's.
    #[error("failed to release address: {source}")]
    Release {
        source: crate::delegate::DelegateError,
    },
    /// A DEL for a pod that is gone only.
    #[error(
        "free what {key} has: nothing tells whether its network namespace lives, so nothing was taken away; `vnetctl ipam free` does it all the same"
    )]
    Unknown { key: rpc::Key },
    #[error(transparent)]
    Link(#[from] crate::link::LinkError),
    #[error(transparent)]
    Sysctl(#[from] crate::sysctl::SysctlError),
    #[error(transparent)]
    Attach(#[from] hooks::AttachError),
    #[error(transparent)]
    Add(#[from] crate::verb::AddError),
    #[error(transparent)]
    Check(#[from] crate::verb::CheckError),
    #[error(transparent)]
    Ipam(#[from] crate::ipam::IpamError),
    #[error(transparent)]
    Gc(#[from] crate::verb::GcError),
    #[error(transparent)]
    Status(#[from] crate::verb::StatusError),
    #[error(transparent)]
    Azure(#[from] crate::verb::AzureError),
    /// The configuration's version is older than the verb.
    #[error("do {verb}: cniVersion {} has no {verb}; use {since} or newer", version.as_str())]
    NoSuchVerb {
        verb: &'static str,
        version: Version,
        since: &'static str,
    },
    /// SIGTERM or SIGINT came before the result was out.
    #[error("add the pod: the call was told to end (SIGTERM or SIGINT) and undone; try again")]
    Interrupted,
    /// The call is not made by root.
    #[error(
        "change the node's network: the caller is not root; {program} needs CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_BPF, run it as root"
    )]
    NotRoot { program: &'static str },
    /// The result or the error could not be written.
    #[error("write to standard output: {source}; the runtime must read the plug-in's answer")]
    Output { source: std::io::Error },
    /// Panicked.
    #[error("{program} panicked: {message}; please report this bug with the log")]
    Panic {
        program: &'static str,
        message: String,
    },
    /// The call failed at `step` and was undone.
    #[error("{source}")]
    At {
        step: &'static str,
        source: Box<Self>,
        /// What could not be undone.
        left: Vec<Self>,
    },
}

impl Error {
    /// The CNI code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Environment(_) => code::ENVIRONMENT,
            Self::Args(error) => error.code(),
            Self::Netconf(error) => error.code(),
            Self::Netns(error) => error.code(),
            Self::Lock(error) => error.code(),
            Self::State(_) | Self::Output { .. } => code::IO,
            Self::Loader(error) => error.code(),
            Self::Delegate(error) => error.code(),
            Self::Link(_) | Self::Sysctl(_) => code::KERNEL,
            Self::Attach(_) => code::PROGRAMS,
            Self::Add(error) => error.code(),
            Self::Check(error) => error.code(),
            Self::Ipam(error) => error.code(),
            Self::Gc(error) => error.code(),
            Self::Status(error) => error.code(),
            Self::Azure(_) => code::PLUGIN,
            Self::NoSuchVerb { .. } => code::INCOMPATIBLE_VERSION,
            Self::Interrupted | Self::Release { .. } | Self::Unknown { .. } => code::TRY_AGAIN,
            Self::NotRoot { .. } => code::PRIVILEGE,
            Self::Panic { .. } => code::BUG,
            Self::At { source, .. } => source.code(),
        }
    }

    /// The second half of what the operator sees: where it happened and what was left behind.
    pub(crate) fn details(&self) -> Option<String> {
        match self {
            Self::Netconf(error) => error.details(),
            Self::Delegate(source) | Self::Release { source } => source.details(),
            Self::Gc(error) => error.details(),
            Self::At { step, source, left } => {
                let mut parts: Vec<String> = source.details().into_iter().collect();
                parts.push(format!("failed at step `{step}`"));
                parts.extend(left.iter().map(|error| format!("could not undo: {error}")));
                Some(parts.join("; "))
            }
            Self::Environment(_)
            | Self::Args(_)
            | Self::Netns(_)
            | Self::Lock(_)
            | Self::State(_)
            | Self::Loader(_)
            | Self::Link(_)
            | Self::Sysctl(_)
            | Self::Attach(_)
            | Self::Add(_)
            | Self::Check(_)
            | Self::Ipam(_)
            | Self::Status(_)
            | Self::Azure(_)
            | Self::NoSuchVerb { .. }
            | Self::Unknown { .. }
            | Self::Interrupted
            | Self::NotRoot { .. }
            | Self::Output { .. }
            | Self::Panic { .. } => None,
        }
    }

    /// The message, with every cause that it does not tell already: some libraries leave the system's reason to the causes.
    fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        message
    }

    /// The error object of the specification.
    pub(crate) fn to_json(&self, version: Version) -> Value {
        let mut object = json!({
            "cniVersion": version.as_str(),
            "code": self.code(),
            "msg": self.message(),
        });
        if let (Some(details), Some(fields)) = (self.details(), object.as_object_mut()) {
            fields.insert("details".into(), details.into());
        }
        object
    }
}

/// Rewords a DEL's error: go-cni takes an error with these words for success and would never retry (contract row 76).
pub(crate) fn retryable(object: &mut Value) {
    for key in ["msg", "details"] {
        if let Some(Value::String(text)) = object.get_mut(key) {
            for (swallowed, kept) in [
                ("not found", "missing"),
                ("no such file or directory", "path is missing"),
            ] {
                *text = text.replace(swallowed, kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_del_error_has_no_words_that_go_cni_swallows() {
        let mut object = json!({"msg": "x: address not found", "details": "no such file or directory: y", "code": 11});
        retryable(&mut object);
        assert_eq!(
            object,
            json!({"msg": "x: address missing", "details": "path is missing: y", "code": 11})
        );
    }

    #[test]
    fn details_name_the_step_and_what_was_left() {
        let error = Error::At {
            step: "attach",
            source: Box::new(Error::NotRoot { program: "p" }),
            left: vec![Error::NotRoot { program: "q" }],
        };
        let object = error.to_json(Version::V1_0_0);
        assert_eq!(object["code"], code::PRIVILEGE);
        let details = object["details"].as_str().unwrap();
        assert!(details.starts_with("failed at step `attach`; could not undo: "));
    }
}
