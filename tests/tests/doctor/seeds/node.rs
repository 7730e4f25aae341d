//! What others can set up wrongly: sysctls, routes, links, systemd, firewalls.

use lab::AZURE_CONFLIST;

use super::{Seed, dead, iptables, run, seed, sysctl, veth, write};

pub(super) const SEEDS: &[Seed] = &[
    dead(
        "forwarding is off",
        "ip-forward",
        &["net.ipv4.ip_forward=1"],
        |lab, _| sysctl(lab, "net.ipv4.ip_forward", "0"),
    ),
    Seed {
        lab: |lab| lab.conflist(&AZURE_CONFLIST.replace("\"bridge\"", "\"tunnel\"")),
        ..seed(
            "a strict rp_filter beside a tunnel mode",
            "rp-filter",
            &["rp_filter=2"],
            |lab, _| sysctl(lab, "net.ipv4.conf.eth0.rp_filter", "1"),
        )
    },
    seed(
        "the node's own ports are ours",
        "port-range",
        &["1024-29999", "ip_local_port_range"],
        |lab, _| sysctl(lab, "net.ipv4.ip_local_port_range", "1024 60999"),
    ),
    dead(
        "a pod's route is gone",
        "pod-routes",
        &["10.240.1.10"],
        |lab, pod| run(lab, &format!("ip route del {}/32", pod.addr())),
    ),
    dead(
        "udev has changed a host veth's address",
        "pod-links",
        &["02:00:00:00:00:99", "udev"],
        |lab, pod| {
            run(
                lab,
                &format!("ip link set {} address 02:00:00:00:00:99", veth(&pod)),
            )
        },
    ),
    dead(
        "the NIC's MTU has changed",
        "pod-links",
        &["the NIC 1400"],
        |lab, _| run(lab, "ip link set eth0 mtu 1400"),
    ),
    seed(
        "a MACAddressPolicy for pods' veths",
        "udev",
        &["MACAddressPolicy=none", "/etc/systemd/network/10-all.link"],
        |lab, _| {
            write(
                lab,
                "/etc/systemd/network/10-all.link",
                "[Match]\nOriginalName=*\n[Link]\nMACAddressPolicy=persistent\n",
            )
        },
    ),
    seed(
        "systemd-networkd removes foreign routes",
        "networkd",
        &["ManageForeignRoutes=no"],
        |lab, _| write(lab, "/run/systemd/netif/state", "OPER_STATE=routable\n"),
    ),
    seed(
        "the FORWARD policy is DROP",
        "forward-rules",
        &["chain FORWARD: policy drop", "datapath: stack"],
        |lab, _| run(lab, "iptables -P FORWARD DROP"),
    ),
    seed(
        "Azure NPM's chains",
        "forward-rules",
        &["Azure NPM filters"],
        |lab, _| {
            iptables(
                lab,
                "*filter\n:AZURE-NPM - [0:0]\n-A FORWARD -j AZURE-NPM\nCOMMIT\n",
            )
        },
    ),
    seed(
        "Calico's chains",
        "forward-rules",
        &["Calico filters", "chain cali-FORWARD"],
        |lab, _| {
            iptables(
                lab,
                "*filter\n:cali-FORWARD - [0:0]\n-A FORWARD -j cali-FORWARD\n-A cali-FORWARD -j DROP\nCOMMIT\n",
            )
        },
    ),
    seed(
        "a firewall's rule in nftables",
        "forward-rules",
        &["inet site", "tcp dport 25"],
        |lab, _| {
            lab.node(1).nft("table inet site {\n chain forwarded {\n type filter hook forward priority 0;\n tcp dport 25 drop\n }\n}\n")?;
            Ok(None)
        },
    ),
    seed(
        "ip-masq-agent beside ours",
        "duplicate-snat",
        &["IP-MASQ-AGENT", "nonMasqueradeCIDRs"],
        |lab, _| {
            lab.node(1).ip_masq_agent(&["10.0.0.0/8"], false)?;
            Ok(None)
        },
    ),
    seed(
        "the documented MASQUERADE rule beside ours",
        "duplicate-snat",
        &["POSTROUTING in ip nat"],
        |lab, _| {
            lab.node(1).documented_masquerade()?;
            Ok(None)
        },
    ),
];
