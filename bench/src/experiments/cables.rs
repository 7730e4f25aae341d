//! GRO and threaded NAPI at the ends of a pod's cable, set anew before every turn.
//!
//! GRO on one end makes that end poll (NAPI) for what the other end sends. What is redirected into a pod passes both by.

use anyhow::{Context as _, Result};
use lab::Namespace;

use super::{Trial, figures, ours};
use crate::load::{Length, stream, tcp};
use crate::names::{Path, Unit};
use crate::run::{Go, flood_of, new_port, requests_of};
use crate::scene::{Kind, Side};

/// sysfs shows the interfaces of the namespace in which it was mounted.
const THREADED: &str = "mount -t sysfs sysfs /mnt && echo \"$1\" > \"/mnt/class/net/$0/threaded\"";

/// How both ends are set.
#[derive(Clone, Copy)]
struct Setting {
    label: &'static str,
    in_pod: bool,
    on_host: bool,
    threaded: bool,
}

const SETTINGS: [Setting; 4] = [
    setting("none", false, false, false),
    setting("GRO in the pod", true, false, false),
    setting("GRO on the host", false, true, false),
    setting("GRO on both, threaded", true, true, true),
];

const fn setting(label: &'static str, in_pod: bool, on_host: bool, threaded: bool) -> Setting {
    Setting {
        label,
        in_pod,
        on_host,
        threaded,
    }
}

/// Makes a turn.
type Load<'a> = dyn Fn() -> Result<Go<'static>> + 'a;

pub(super) fn run(trial: &mut Trial, name: &str) -> Result<()> {
    let side = &ours(Kind::Traffic, None, &|_| Ok(()))?;
    let times = trial.times;
    // A MiB for each millisecond that the other loads last: about as long where nobody else works.
    let amount = Length::Mebibytes(u32::try_from(times.counted.as_millis())?);
    let streams = |path| {
        move || -> Result<Go<'static>> {
            let (client, server) = side.ends(path)?;
            Ok(Box::new(move || {
                let at = (&server.namespace, server.address);
                stream(&client.namespace, at, new_port(), 1, amount).map(|sample| vec![sample])
            }))
        }
    };
    let (out, into) = (Path::ToVnet, Path::FromVnet);
    let connections = || requests_of(&side.ends(out)?, times, tcp::connect_close);
    let answers = || requests_of(&side.ends(into)?, times, tcp::request_response);
    let loads: [(&str, Path, Unit, &Load<'_>); 5] = [
        ("tcp_stream", out, Unit::Gigabits, &streams(out)),
        ("tcp_stream", into, Unit::Gigabits, &streams(into)),
        ("tcp_crr", out, Unit::PerSecond, &connections),
        ("tcp_rr", into, Unit::PerSecond, &answers),
        ("udp_pps", out, Unit::PerSecond, &|| {
            flood_of(side, out, times)
        }),
    ];
    for (load, path, unit, make) in loads {
        let turns = SETTINGS.iter().map(|setting| {
            let mut go = make()?;
            let go: Go<'_> = Box::new(move || {
                setting.make(side)?;
                go()
            });
            Ok((setting.label, go))
        });
        let turns = turns.collect::<Result<_>>()?;
        trial.alternate(name, &figures(load, path, unit), turns)?;
    }
    Ok(())
}

impl Setting {
    fn make(self, side: &Side) -> Result<()> {
        let pod = side.pods.first().context("a pod is missing")?;
        self.set(pod, "eth0", self.in_pod)?;
        self.set(side.node(), pod.host_veth()?, self.on_host)
    }

    fn set(self, namespace: &Namespace, interface: &str, gro: bool) -> Result<()> {
        let on = if gro { "on" } else { "off" };
        namespace.exec(&["ethtool", "-K", interface, "gro", on])?;
        // Without GRO the interface has no NAPI, threaded or not.
        if gro {
            let threaded = if self.threaded { "1" } else { "0" };
            namespace.exec(&[
                "unshare", "--mount", "sh", "-c", THREADED, interface, threaded,
            ])?;
        }
        Ok(())
    }
}
