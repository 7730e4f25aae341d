//! `CNI_ARGS`: `K=V;K=V`.

use crate::code;

/// `CNI_ARGS` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// Not `K=V`.
    #[error("read CNI_ARGS: invalid pair `{pair}`; write K=V;K=V")]
    Pair { pair: String },
    /// A key that nobody knows, and `IgnoreUnknown` is not set.
    #[error("read CNI_ARGS: unknown args {keys}; remove them or add IgnoreUnknown=1")]
    Unknown { keys: String },
    /// `IgnoreUnknown` is neither true nor false.
    #[error("read CNI_ARGS: IgnoreUnknown=`{value}` is neither 1, true, 0 nor false")]
    IgnoreUnknown { value: String },
    /// Azure's text, which log-matching tools look for.
    #[error(
        "Pod Namespace not specified in CNI Args: CNI_ARGS has no K8S_POD_NAMESPACE; the runtime must pass it, or the configuration have `allowNonKubernetes: true`"
    )]
    NoPodNamespace,
    /// Azure's text.
    #[error(
        "Pod Name not specified in CNI Args: CNI_ARGS has no K8S_POD_NAME; the runtime must pass it, or the configuration have `allowNonKubernetes: true`"
    )]
    NoPodName,
}

impl ArgsError {
    /// The CNI code.
    pub fn code(&self) -> u32 {
        match self {
            Self::Pair { .. } | Self::Unknown { .. } | Self::IgnoreUnknown { .. } => {
                code::ENVIRONMENT
            }
            Self::NoPodNamespace | Self::NoPodName => code::PLUGIN,
        }
    }
}

/// The known keys. One that is not given is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    pub pod_namespace: String,
    pub pod_name: String,
    /// `IP`, a static address (podman).
    pub ip: String,
    /// `MAC`, a static Ethernet address (podman).
    pub mac: String,
}

impl Args {
    /// Reads `CNI_ARGS`; the order of the pairs does not matter.
    pub fn parse(text: &str) -> Result<Self, ArgsError> {
        let mut args = Self::default();
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        let pairs = if text.is_empty() {
            None
        } else {
            Some(text.split(';'))
        };
        for pair in pairs.into_iter().flatten() {
            let (key, value) = pair
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.contains('='))
                .ok_or_else(|| ArgsError::Pair {
                    pair: pair.escape_debug().to_string(),
                })?;
            match key {
                "IgnoreUnknown" => ignore_unknown = flag(value)?,
                "K8S_POD_NAMESPACE" => value.clone_into(&mut args.pod_namespace),
                "K8S_POD_NAME" => value.clone_into(&mut args.pod_name),
                "IP" => value.clone_into(&mut args.ip),
                "MAC" => value.clone_into(&mut args.mac),
                "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => {}
                other => unknown.push(other),
            }
        }
        if !unknown.is_empty() && !ignore_unknown {
            return Err(ArgsError::Unknown {
                keys: unknown.join(", ").escape_debug().to_string(),
            });
        }
        Ok(args)
    }

    /// What a runtime that knows no Kubernetes leaves out: the pod's name is the container's id.
    pub fn name_after(&mut self, container_id: &str) {
        for (field, default) in [
            (&mut self.pod_namespace, "default"),
            (&mut self.pod_name, container_id),
        ] {
            if field.is_empty() {
                default.clone_into(field);
            }
        }
    }

    /// ADD needs to know which pod this is; Azure asks for the namespace first.
    pub fn require_pod(&self) -> Result<(), ArgsError> {
        if self.pod_namespace.is_empty() {
            return Err(ArgsError::NoPodNamespace);
        }
        if self.pod_name.is_empty() {
            return Err(ArgsError::NoPodName);
        }
        Ok(())
    }
}

/// libcni's boolean: `1`, `0`, `true`, `false` in any case.
fn flag(value: &str) -> Result<bool, ArgsError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(ArgsError::IgnoreUnknown {
            value: value.escape_debug().to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_pod_is_found_in_any_order() {
        for text in [
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=x;Y=z",
            "Y=z;K8S_POD_NAME=web;IgnoreUnknown=True;K8S_POD_NAMESPACE=ns",
        ] {
            let args = Args::parse(text).unwrap();
            assert_eq!((&*args.pod_namespace, &*args.pod_name), ("ns", "web"));
            args.require_pod().unwrap();
        }
    }

    #[test]
    fn broken_args_are_refused() {
        for (text, reason) in [
            ("A", "invalid pair"),
            ("A=B=C", "invalid pair"),
            (";", "invalid pair"),
            ("IP=1;", "invalid pair"),
            ("=x", "invalid pair"),
            ("A=1", "unknown args A"),
            ("A=1;IgnoreUnknown=0", "unknown args A"),
            ("IgnoreUnknown=maybe", "IgnoreUnknown"),
        ] {
            let error = Args::parse(text).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert_eq!(error.code(), code::ENVIRONMENT);
        }
    }

    #[test]
    fn azures_texts_are_kept_when_the_pod_is_missing() {
        for (text, start) in [
            ("", "Pod Namespace not specified in CNI Args"),
            ("K8S_POD_NAME=a", "Pod Namespace not specified in CNI Args"),
            ("K8S_POD_NAMESPACE=a", "Pod Name not specified in CNI Args"),
        ] {
            let error = Args::parse(text).unwrap().require_pod().unwrap_err();
            assert!(error.to_string().starts_with(start), "{error}");
            assert_eq!(error.code(), 100);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_value_is_taken_verbatim(noise in ".*", name in "[^;=]{1,300}") {
            drop(Args::parse(&noise));
            let args = Args::parse(&format!("IgnoreUnknown=1;K8S_POD_NAME={name};Z=1")).unwrap();
            prop_assert_eq!(args.pod_name, name);
        }
    }
}
