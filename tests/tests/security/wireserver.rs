//! The wireserver's ports 80 and 32526 hand out the VM's secrets: no shape of packet gets there, with or without programs.

use fastrand::Rng;
use lab::{Ipv4, WIRESERVER};

use crate::shapes::disguised;
use crate::{Result, SOON, Scene, Target};

/// Always.
const SOME: u32 = 5_000;
/// On demand.
const MANY: u32 = 100_000;

/// Counts TCP for the protected ports as it arrives and once it is put together, and every piece of TCP that does not
/// show its port: in fragments, or cut short. `ct` is what makes the kernel put fragments together.
const COUNT: &str = "table ip guard {
  counter secrets { }
  counter pieces { }
  counter dns { }
  chain arriving {
    type filter hook prerouting priority -450; policy accept;
    tcp dport { 80, 32526 } counter name secrets
    tcp dport 53 counter name dns
    ip protocol tcp ip frag-off & 0x3fff != 0 counter name pieces
    ip protocol tcp ip length < 40 counter name pieces
  }
  chain together {
    type filter hook prerouting priority -350; policy accept;
    ct state invalid,new,established tcp dport { 80, 32526 } counter name secrets
  }
}";

/// Packets of a counter at the platform.
fn counted(scene: &Scene, counter: &str) -> Result<u64> {
    let line = ["nft", "-j", "list", "counter", "ip", "guard", counter];
    let text = scene.lab.platform().exec(&line)?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    let objects = json["nftables"].as_array().into_iter().flatten();
    let mut packets = objects.filter_map(|object| object["counter"]["packets"].as_u64());
    Ok(packets.next().expect("nft tells the counter"))
}

/// A scene whose loader is gone, because it asks the wireserver itself; what it has set up stays.
fn watched() -> Result<Scene> {
    let scene = Scene::new()?;
    for node in scene.lab.nodes() {
        node.loader().kill9()?;
    }
    scene.lab.platform().nft(COUNT)?;
    Ok(scene)
}

/// Sends so many disguised segments; DNS works in between.
fn bombard(scene: &Scene, count: u32, seed: u64) -> Result {
    let mut rng = Rng::with_seed(seed);
    let (ends, sender) = (scene.ends(Target::Wireserver)?, scene.sender()?);
    for number in 0..count {
        for frame in disguised(&mut rng, &ends) {
            sender.send(&frame)?;
        }
        if number % 500 == 0 {
            assert_eq!(scene.pod.dns("www.example.com")?, scene.pod.addr());
            let dns = Ipv4::tcp((ends.own, 5353), (WIRESERVER, 53), 2, &[]);
            sender.send(&ends.frame(&dns))?;
        }
    }
    // Behind all of them.
    assert_eq!(scene.pod.dns("www.example.com")?, scene.pod.addr());
    Ok(())
}

/// Nothing but DNS arrives.
fn besiege(scene: &Scene, count: u32) -> Result {
    let seed = fastrand::u64(..);
    bombard(scene, count, seed)?;
    assert!(counted(scene, "dns")? > 0, "the instrument counts");
    assert_eq!(counted(scene, "secrets")?, 0, "seed {seed}");
    Ok(())
}

/// With the programs, and then with the kernel's own rules alone.
fn besiege_both(count: u32) -> Result {
    let scene = watched()?;
    besiege(&scene, count)?;
    assert_eq!(
        counted(&scene, "pieces")?,
        0,
        "what hides its port is dropped"
    );
    let veth = scene.pod.host_veth()?;
    let node = scene.lab.node(1);
    node.exec(&["tc", "qdisc", "del", "dev", veth, "clsact"])?;
    besiege(&scene, count)
}

#[test]
fn no_shape_of_packet_reaches_the_wireservers_secrets() -> Result {
    besiege_both(SOME)
}

#[test]
#[ignore = "slow: 100,000 shapes, twice"]
fn no_shape_of_a_hundred_thousand_reaches_the_wireservers_secrets() -> Result {
    besiege_both(MANY)
}

#[test]
fn without_the_block_the_same_shapes_do_arrive() -> Result {
    let scene = Scene::new()?;
    let node = scene.lab.node(1);
    node.loader().kill9()?;
    node.write("/etc/azure-vnet/loader.yaml", "blockWireserver: false\n")?;
    node.start_loader()?;
    node.loader().kill9()?;
    scene.lab.platform().nft(COUNT)?;
    bombard(&scene, 100, 1)?;
    assert!(
        counted(&scene, "secrets")? > 10,
        "the shapes are not just noise"
    );
    Ok(())
}

#[test]
fn a_source_route_does_not_lead_to_the_wireserver_either() -> Result {
    let scene = watched()?;
    let node = scene.lab.node(1);
    // An operator may have switched source routes on; then the node's own address is a way to everywhere.
    let veth = scene.pod.host_veth()?.to_owned();
    for interface in ["all", &veth] {
        node.sysctl(
            &format!("net.ipv4.conf.{interface}.accept_source_route"),
            "1",
        )?;
    }
    let ends = scene.ends(Target::Node)?;
    // The fabric takes no source routes, so what leaves the node is looked at.
    let arrived = node.capture("eth0")?;
    let [a, b, c, d] = WIRESERVER.octets();
    // The way exists: to another port the packet arrives, behind the others.
    for port in [80, 32_526, 5353] {
        let packet = Ipv4 {
            options: vec![131, 7, 4, a, b, c, d, 0],
            ..Ipv4::tcp((ends.own, 4000), (ends.to, port), 2, &[])
        };
        scene.sender()?.send(&ends.frame(&packet))?;
    }
    let is_last = |packet: Ipv4| packet.dst == WIRESERVER && packet.ports() == Some((4000, 5353));
    let last = arrived.wait_for(SOON, |frame| Ipv4::of_frame(frame).is_some_and(is_last));
    assert!(last.is_some(), "the node takes source routes");
    let is_secret = |packet: &Ipv4| matches!(packet.ports(), Some((4000, 80 | 32_526)));
    let secrets = arrived.find(|frame| Ipv4::of_frame(frame).filter(is_secret));
    assert_eq!(secrets, []);
    Ok(())
}
