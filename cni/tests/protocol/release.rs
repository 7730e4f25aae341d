//! An address that the IPAM plug-in does not take back at once: somebody must ask it again, and nobody may forget it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::exec::netconf_with;
use crate::loader::{Loader, Manner};
use crate::sandbox::Sandbox;

const GIVEN: &str = "/run/given";
const BROKEN: &str = "/run/broken";

/// Gives one address, and takes nothing back while it is broken; `$REFUSE` makes ADD fail after the address is taken.
const STUBBORN: &str = r#"
if [ $CNI_COMMAND = DEL ]; then
    [ ! -e /run/broken ] || { echo '{"code":100,"msg":"disk is full"}'; exit 1; }
    rm -f /run/given; exit 0
fi
touch /run/given
[ -z "$REFUSE" ] || { echo '{"code":100,"msg":"no luck"}'; exit 1; }
echo '{"ips":[{"address":"10.240.0.5/16"}]}'"#;

fn conf() -> Value {
    netconf_with(json!({"ipam": {"type": "stubborn"}}))
}

/// A configuration that came after ADD, of another plug-in, and that ADD would refuse.
fn changed() -> Value {
    netconf_with(json!({"mode": "nonsense", "ipam": {"type": "other"}}))
}

fn exists(path: &str) -> bool {
    fs::exists(path).unwrap()
}

/// ADD fails, in the IPAM plug-in itself or at a later step, and so does what undoes it.
#[test]
fn what_a_failed_add_could_not_give_back_is_left_for_del() {
    for (refuse, code, step) in [("1", 100, "ipam"), ("", 103, "attach")] {
        let sandbox = Sandbox::with_pod();
        let _loader = Loader::start(Manner::Helpful);
        let plugins = sandbox.add_plugin("stubborn", STUBBORN);
        let exec = |verb: &str, conf: &Value| {
            sandbox
                .azure_vnet(verb)
                .env("CNI_PATH", &plugins)
                .env("PATH", "/usr/bin:/bin")
                .env("REFUSE", refuse)
                .conf(conf)
                .run()
        };
        let before = sandbox.snapshot();
        fs::write(BROKEN, "").unwrap();
        exec("ADD", &conf()).error_saying(
            code,
            &[
                &format!("failed at step `{step}`"),
                "could not undo: disk is full",
            ],
        );
        for _ in 0..2 {
            exec("DEL", &changed()).error_saying(
                11,
                &[
                    "failed to release address: disk is full",
                    "failed at step `ipam`",
                ],
            );
        }
        fs::remove_file(BROKEN).unwrap();
        exec("DEL", &changed()).silence();
        assert!(!exists(GIVEN), "{step}");
        assert_eq!(sandbox.snapshot(), before, "{step}");
    }
}

/// A plug-in that could not be started has given nothing: nothing keeps DEL waiting for it.
#[test]
fn a_plugin_that_never_ran_leaves_nothing_to_give_back() {
    let sandbox = Sandbox::with_pod();
    let _loader = Loader::start(Manner::Helpful);
    let plugins = sandbox.add_plugin("stubborn", "");
    let forbidden = fs::Permissions::from_mode(0o600);
    fs::set_permissions(plugins.join("stubborn"), forbidden).unwrap();
    let before = sandbox.snapshot();
    let add = sandbox.azure_vnet("ADD").env("CNI_PATH", &plugins);
    add.conf(&conf()).run().error_saying(104, &["stubborn"]);
    assert_eq!(sandbox.snapshot(), before);
}

/// Without a readable record the plug-in of today is asked; what it refuses is told as long as something says that there was
/// an ADD, whatever else is wrong with the configuration.
#[test]
fn a_damaged_record_is_no_reason_to_forget_the_address() {
    let sandbox = Sandbox::with_pod();
    let plugins = sandbox.add_plugin("other", "[ ! -e /run/broken ] && rm /run/given");
    let record = "/run/azure-vnet/endpoints/azure:c1:eth0.json";
    fs::create_dir_all("/run/azure-vnet/endpoints").unwrap();
    for file in [record, BROKEN, GIVEN] {
        fs::write(file, "damaged").unwrap();
    }
    let del = || {
        let exec = sandbox.azure_vnet("DEL").env("CNI_PATH", &plugins);
        exec.env("PATH", "/usr/bin:/bin").conf(&changed()).run()
    };
    del().error_saying(11, &["failed to release address"]);
    assert!(exists(record));
    fs::remove_file(BROKEN).unwrap();
    del().silence();
    assert!(!exists(record) && !exists(GIVEN));
}
