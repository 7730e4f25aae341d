//! What can be wrong with what we install: kernel, conflist, plug-ins, loader, addresses.

use lab::{AZURE_CONFLIST, CONFLIST, Lab, Process, Wireserver};

use super::{OTHER, Result, Seed, dead, run, seed, until, veth, write};

/// A key that there is not: `serviceCidrs` is meant.
fn misspell(lab: &Lab) -> Result<Option<Process>> {
    write(
        lab,
        "/etc/azure-vnet/loader.yaml",
        "serviceCidr: [10.0.0.0/16]\n",
    )
}

pub(super) const SEEDS: &[Seed] = &[
    seed(
        "a kernel without clsact",
        "kernel-config",
        &["CONFIG_NET_SCH_INGRESS", "boot a kernel"],
        |lab, _| {
            let kernel = lab.node(1).exec(&["uname", "-r"])?;
            let on = [
                "BPF_SYSCALL",
                "DEBUG_INFO_BTF",
                "NET_CLS_BPF",
                "NF_TABLES",
                "VETH",
            ];
            let on: Vec<String> = on.iter().map(|name| format!("CONFIG_{name}=m\n")).collect();
            let text = on.concat() + "# CONFIG_NET_SCH_INGRESS is not set\n";
            write(lab, &format!("/boot/config-{}", kernel.trim()), &text)
        },
    ),
    dead(
        "a kernel without BTF",
        "btf",
        &["CONFIG_DEBUG_INFO_BTF=y"],
        |lab, _| run(lab, "mount -t tmpfs none /sys/kernel/btf"),
    ),
    dead(
        "bpffs is not mounted",
        "bpffs",
        &["mount -t bpf bpf /sys/fs/bpf"],
        |lab, _| run(lab, "umount -l /sys/fs/bpf"),
    ),
    seed("the clock has gone back", "clock", &["chrony"], |lab, _| {
        run(lab, "touch -d +1day /run/azure-vnet/ipam/pools.json")
    }),
    dead(
        "no default route",
        "default-route",
        &["no IPv4 default route"],
        |lab, _| run(lab, "ip route del default"),
    ),
    seed(
        "no conflist of ours",
        "conflist",
        &["names azure-vnet", "install -D"],
        |lab, _| run(lab, &format!("rm {CONFLIST}")),
    ),
    seed(
        "another conflist comes first",
        "conflist-first",
        &["comes after /etc/cni/net.d/05-other.conflist"],
        |lab, _| write(lab, "/etc/cni/net.d/05-other.conflist", OTHER),
    ),
    seed(
        "another conflist comes second",
        "conflist-first",
        &["is not alone: /etc/cni/net.d/20-other.conflist"],
        |lab, _| write(lab, "/etc/cni/net.d/20-other.conflist", OTHER),
    ),
    seed(
        "a key of the conflist is wrong",
        "conflist-valid",
        &["line ", "vnetctl validate"],
        |lab, _| {
            write(
                lab,
                CONFLIST,
                &AZURE_CONFLIST.replace("\"bridge\"", "\"bridges\""),
            )
        },
    ),
    seed(
        "portmap comes before azure-vnet",
        "plugin-order",
        &["portmap comes before azure-vnet"],
        |lab, _| {
            let swapped = AZURE_CONFLIST
                .replace("\"azure-vnet\"", "\"x\"")
                .replace("\"portmap\"", "\"azure-vnet\"");
            write(lab, CONFLIST, &swapped.replace("\"x\"", "\"portmap\""))
        },
    ),
    seed(
        "a plug-in is missing",
        "plugin-missing",
        &["portmap", "containernetworking-plugins"],
        |lab, _| run(lab, "rm /opt/cni/bin/portmap"),
    ),
    seed(
        "everybody may write plug-ins",
        "plugin-permissions",
        &["mode 777", "chmod 755"],
        |lab, _| run(lab, "chmod 777 /opt/cni/bin"),
    ),
    seed(
        "a plug-in is not executable",
        "plugin-permissions",
        &["portmap is not executable"],
        |lab, _| {
            run(
                lab,
                "cp --remove-destination /usr/lib/cni/portmap /opt/cni/bin/portmap",
            )?;
            run(lab, "chmod 644 /opt/cni/bin/portmap")
        },
    ),
    dead(
        "the loader is dead",
        "loader",
        &["systemctl restart azure-vnet-loader"],
        |_, _| Ok(None),
    ),
    dead(
        "the loader lacks a capability",
        "loader-capabilities",
        &["CAP_PERFMON"],
        |lab, _| {
            let loader = "/opt/azure-vnet/bin/azure-vnet-loader";
            let line = [
                "setpriv",
                "--bounding-set=-perfmon",
                "--inh-caps=-perfmon",
                loader,
            ];
            let started = lab.node(1).start(&line)?;
            run(lab, "vnetctl status --wait --brief")?;
            Ok(Some(started))
        },
    ),
    seed(
        "loader.yaml is refused",
        "loader-config",
        &["serviceCidr", "within a second"],
        |lab, _| {
            misspell(lab)?;
            until(lab, "loader-config")
        },
    ),
    dead(
        "loader.yaml is refused at start",
        "loader-config",
        &["serviceCidr", "systemctl restart azure-vnet-loader"],
        |lab, _| misspell(lab),
    ),
    seed(
        "a setting waits for a restart",
        "loader-warnings",
        &["nic: `other0` takes effect with `systemctl restart"],
        |lab, _| {
            run(lab, "ip link add other0 type bridge")?;
            write(lab, "/etc/azure-vnet/loader.yaml", "nic: other0\n")?;
            until(lab, "loader-warnings")
        },
    ),
    seed(
        "everybody may read the records",
        "run-directory",
        &["mode 755", "chmod 700"],
        |lab, _| run(lab, "chmod 755 /run/azure-vnet"),
    ),
    dead(
        "a record is damaged",
        "records",
        &["checksum", "delete the pod"],
        |lab, _| {
            run(
                lab,
                "for record in /run/azure-vnet/endpoints/*.json; do echo garbage > $record; done",
            )
        },
    ),
    seed(
        "an older layout has left pins",
        "stale-pins",
        &[
            "/sys/fs/bpf/azure-vnet/v0",
            "a loader that starts anew does not start",
        ],
        |lab, _| run(lab, "mkdir -p /sys/fs/bpf/azure-vnet/v0/maps"),
    ),
    dead(
        "pins of an interface that is gone",
        "stale-pins",
        &["/sys/fs/bpf/azure-vnet/v1/links/gone+7:from_wire"],
        |lab, _| {
            run(
                lab,
                "cd /sys/fs/bpf/azure-vnet/v1; if ls links/eth0:from_wire; then mv links/eth0:from_wire links/gone+7:from_wire; \
                 else bpftool prog pin pinned programs/from_wire links/gone+7:from_wire; fi",
            )
        },
    ),
    dead(
        "a program of the NIC is gone",
        "nic-programs",
        &["from_wire does not run on eth0"],
        |lab, _| {
            run(
                lab,
                "rm -f /sys/fs/bpf/azure-vnet/v1/links/eth0:from_wire; tc filter del dev eth0 ingress 2> /dev/null; true",
            )
        },
    ),
    dead(
        "a pod has lost its programs",
        "pods",
        &["default/web", "no program from_pod"],
        |lab, pod| run(lab, &format!("tc qdisc del dev {} clsact", veth(&pod))),
    ),
    dead(
        "somebody flushed the ruleset",
        "kernel-rules",
        &["table `azure-vnet` is gone"],
        |lab, _| run(lab, "nft flush ruleset"),
    ),
    dead(
        "the wireserver does not answer",
        "address-source",
        &["168.63.129.16", "TCP port 80"],
        |lab, _| {
            lab.platform().wireserver(Wireserver::Absent)?;
            Ok(None)
        },
    ),
    Seed {
        lab: |lab| lab.secondaries(1),
        ..seed(
            "no address is left",
            "addresses-used-up",
            &["all 1 addresses", "secondary addresses"],
            |_, _| Ok(None),
        )
    },
    seed(
        "a pod's address leaks",
        "addresses-leaked",
        &["10.240.1.10", "vnetctl ipam gc"],
        |lab, pod| {
            pod.remove_netns()?;
            // The host veth goes a moment after the namespace.
            until(lab, "addresses-leaked")
        },
    ),
];
