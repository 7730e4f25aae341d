//! `vnetctl endpoints`, `snat` and `flows` read what the kernel holds, so that a dead loader hides nothing.

use std::net::Ipv4Addr;

use lab::{Proxy, Service};

use super::*;

const PORT: u16 = 8080;

#[test]
fn pods_are_listed_with_names_ages_and_packets_also_when_the_loader_is_dead() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let (web, db) = (node.add_pod("web")?, node.add_pod("db")?);
    let _echo = db.serve_echo(PORT)?;
    web.tcp(db.addr(), PORT)?;
    node.loader().kill9()?;

    let told = json(node, "endpoints")?;
    let pods: Vec<&str> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["pod"].as_str().unwrap())
        .collect();
    assert_eq!(pods, ["default/web", "default/db"]);
    let pod = &told[0];
    assert_eq!(pod["address"], web.addr().to_string());
    assert_eq!(pod["missing"], serde_json::json!([]));
    assert_eq!(pod["record"]["container_id"], web.container_id());
    assert!(pod["age_s"].as_u64().unwrap() < 60, "{pod}");
    assert!(
        pod["paths"]["to_pod"]["packets"].as_u64().unwrap() > 0,
        "{pod}"
    );

    let table = node.exec(&["vnetctl", "endpoints"])?;
    assert!(table.lines().nth(1).unwrap().ends_with("ok"), "{table}");
    assert!(!table.contains(web.container_id()), "{table}");
    let wide = node.exec(&["vnetctl", "endpoints", "-o", "wide"])?;
    assert!(wide.contains(web.container_id()), "{wide}");
    Ok(())
}

#[test]
fn a_pod_that_is_not_whole_says_what_it_lacks() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let (unguarded, gone) = (node.add_pod("unguarded")?, node.add_pod("gone")?);
    node.loader().kill9()?;
    let veth = |pod: &lab::Pod| {
        pod.result()["interfaces"][1]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    node.exec(&["tc", "qdisc", "del", "dev", &veth(&unguarded), "clsact"])?;
    node.exec(&["ip", "link", "del", &veth(&gone)])?;
    node.exec(&["sh", "-c", "rm /run/azure-vnet/endpoints/*:*"])?;
    let told = node.feed(&["vnetctl", "endpoints"], b"")?;
    assert_eq!(told.status.code(), Some(1));
    assert!(
        told.stderr.contains("2 pods are not whole"),
        "{}",
        told.stderr
    );
    let table = String::from_utf8(told.stdout)?;
    let line = |pod: &lab::Pod| {
        let address = pod.addr().to_string();
        table
            .lines()
            .find(|line| line.contains(&address))
            .unwrap()
            .to_owned()
    };
    assert!(
        line(&unguarded).ends_with("NO record, program to_pod, program from_pod"),
        "{table}"
    );
    assert!(line(&gone).ends_with("NO record, host veth"), "{table}");
    Ok(())
}

#[test]
fn bindings_are_told_by_pod_and_by_remote_end() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let (web, db) = (node.add_pod("web")?, node.add_pod("db")?);
    let inet = lab.inet().addr();
    let open: Vec<_> = (2000..2003)
        .map(|from| web.converse(from, inet, PORT))
        .collect::<Result<_>>()?;
    let _one = db.converse(2000, inet, PORT)?;
    node.loader().kill9()?;

    let told = json(node, "snat web")?;
    assert_eq!(told["total"], 3);
    let ports = |key: &str| -> Vec<u64> {
        let all = told["bindings"].as_array().unwrap().iter();
        let mut ports: Vec<u64> = all.map(|one| one[key].as_u64().unwrap()).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports("port"), [2000, 2001, 2002]);
    let mut seen: Vec<u64> = open.iter().map(|open| open.seen().port().into()).collect();
    seen.sort_unstable();
    assert_eq!(ports("nat_port"), seen, "as the server sees them");
    assert_eq!(told["bindings"][0]["state"], "established");
    assert_eq!(told["bindings"][0]["pod"], "default/web");
    for name in ["default/db", &db.addr().to_string()] {
        assert_eq!(json(node, &format!("snat {name}"))?["total"], 1, "{name}");
    }
    let few = node.exec(&["vnetctl", "snat", "--limit", "2"])?;
    assert!(
        few.ends_with("2 of 4 shown; --limit 4 shows all\n"),
        "{few}"
    );

    let top = json(node, "snat --top 1")?;
    let end = &top["remote_ends"][0];
    assert_eq!((&end["ports"], &end["pods"]), (&4.into(), &2.into()));
    assert_eq!(end["address"], inet.to_string());
    assert_eq!(end["port"], PORT);
    let unknown = node.feed(&["vnetctl", "snat", "nobody"], b"")?;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        unknown.stderr.contains("vnetctl endpoints"),
        "{}",
        unknown.stderr
    );
    Ok(())
}

#[test]
fn flows_say_which_way_they_go() -> Result {
    let lab = lab()?;
    let node = lab.node(1);
    let (web, db) = (node.add_pod("web")?, node.add_pod("db")?);
    let _echo = db.serve_echo(PORT)?;
    let service = Ipv4Addr::new(10, 0, 0, 10);
    let services = [Service::new("db", service, PORT).backend(db.addr(), PORT)];
    node.proxy(Proxy::Iptables, &services)?;
    let _through_the_service = web.converse(2000, service, PORT)?;
    node.loader().kill9()?;
    let told = json(node, "flows db")?;
    let flow = &told["flows"][0];
    let ends: Vec<&str> = (0..2)
        .map(|end| flow["ends"][end]["pod"].as_str().unwrap())
        .collect();
    assert!(
        ends.contains(&"default/web") && ends.contains(&"default/db"),
        "{flow}"
    );
    assert_eq!(flow["side"], "stack", "{flow}");
    assert!(flow["idle_s"].as_u64().unwrap() < 60, "{flow}");
    let table = node.exec(&["vnetctl", "flows"])?;
    assert!(table.contains(&format!("{}:2000", web.addr())), "{table}");
    assert!(table.contains("answered"), "{table}");
    Ok(())
}

#[test]
fn without_pins_it_is_a_clear_error() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    for command in ["endpoints", "snat", "flows"] {
        let done = lab.node(1).feed(&["vnetctl", command], b"")?;
        assert_eq!(done.status.code(), Some(1), "{command}");
        assert!(
            done.stderr.contains("is azure-vnet-loader running"),
            "{}",
            done.stderr
        );
    }
    Ok(())
}
