//! What goes, and what stays.

use serde_json::json;

use super::*;

#[test]
fn secrets_go_and_the_rest_stays() {
    for (text, clean) in [
        (
            "K8S_POD_NAME=token-x;TOKEN=abc;X=1",
            "K8S_POD_NAME=token-x;TOKEN=<redacted>",
        ),
        ("password: hunter2 is, what; I) use", "password: <redacted>"),
        ("clientSecret = \"a b\"", "clientSecret = \"<redacted>"),
        ("Authorization: Bearer abc", "Authorization: <redacted>"),
        (
            "Authorization: SharedKey account:c2ln",
            "Authorization: <redacted>",
        ),
        ("client-key-data: LS0tLS1", "client-key-data: <redacted>"),
        ("    api-key: x", "    api-key: <redacted>"),
        ("access_key = x", "access_key = <redacted>"),
        (
            "Endpoint=sb://x/;SharedAccessKey=c2ln=;EntityPath=y",
            "Endpoint=sb://x/;SharedAccessKey=<redacted>",
        ),
        (
            "ExecStart=/x --token abc -v",
            "ExecStart=/x --token <redacted>",
        ),
        (
            "https://x/y?sv=1&sig=abc%3D&x=2 next",
            "https://x/y?sv=1&sig=<redacted>&x=2 next",
        ),
        ("https://x/y?sig=abc", "https://x/y?sig=<redacted>"),
        (
            "proxy: http://user:pw@host:80/x and ftp://me@h",
            "proxy: http://<redacted>@host:80/x and ftp://<redacted>@h",
        ),
        (
            "token: |\n  abc\n\n  def\nkept: 1",
            "token: <redacted>\n<redacted>\n\n<redacted>\nkept: 1",
        ),
        (
            "- tokens:\n  - abc\n  kept: 1",
            "- tokens:<redacted>\n<redacted>\n  kept: 1",
        ),
        (
            "env: [{name: TOKEN, value: a b}, {name: X}]",
            "env: [{name: TOKEN, value: <redacted>",
        ),
        (
            "x {\"name\":\"TOKEN\",\"value\":\"abc\"}",
            "x {\"name\":\"TOKEN\",\"value\":\"<redacted>",
        ),
        (
            "- name: TOKEN\n  value: |\n    abc\n  kept: 1\n- name: X\n  value: kept",
            "- name: TOKEN\n  value: <redacted>\n<redacted>\n  kept: 1\n- name: X\n  value: kept",
        ),
        (
            "env:\n- name: TOKEN\nvalue: kept",
            "env:\n- name: TOKEN\nvalue: kept",
        ),
        (
            "args: [\"--token\", \"abc\"]",
            "args: [\"--token\", \"<redacted>",
        ),
        (
            "args: [\"-token\",\"abc\"]",
            "args: [\"-token\",\"<redacted>",
        ),
        ("- --token\n- abc\n- kept", "- --token\n<redacted>\n- kept"),
        (
            "- \"--token\"\n- \"abc\"\n- kept",
            "- \"--token\"\n<redacted>\n- kept",
        ),
        (
            "default/token-service 10.240.1.10",
            "default/token-service 10.240.1.10",
        ),
        (
            "12: array  name secret  flags 0x0",
            "12: array  name secret  flags 0x0",
        ),
        (
            "DEL failed: key: azure:0123:eth0 via eth0",
            "DEL failed: key: azure:0123:eth0 via eth0",
        ),
    ] {
        assert_eq!(redact(text), clean);
    }
}

#[test]
fn json_keeps_its_shape() {
    let clean = redact(
        r#"{"a": {"authToken": "x", "b": ["K=1;password=y", "a\npwd: z\nc"], "key": {"ifname": "eth0"}}, "secretRef": null}"#,
    );
    let clean: Value = serde_json::from_str(&clean).unwrap();
    assert_eq!(
        clean,
        json!({"a": {"authToken": INSTEAD, "b": ["K=1;password=<redacted>", "a\npwd: <redacted>\nc"],
            "key": {"ifname": "eth0"}}, "secretRef": null})
    );
    for (shape, clean) in [
        (
            json!([{"name": "TOKEN", "value": "abc"}, {"name": "X", "value": "kept"}]),
            json!([{"name": "TOKEN", "value": INSTEAD}, {"name": "X", "value": "kept"}]),
        ),
        (
            json!({"Value": "abc", "Key": "api-key", "kept": 1}),
            json!({"Value": INSTEAD, "Key": "api-key", "kept": 1}),
        ),
        (
            json!([
                "x",
                "--token",
                "abc",
                "kept",
                "-password",
                "a=b",
                "--token=abc",
                "kept"
            ]),
            json!([
                "x",
                "--token",
                INSTEAD,
                "kept",
                "-password",
                INSTEAD,
                "--token=<redacted>",
                "kept"
            ]),
        ),
        (
            json!({"key": "name", "value": 1}),
            json!({"key": "name", "value": 1}),
        ),
    ] {
        let told: Value = serde_json::from_str(&redact(&shape.to_string())).unwrap();
        assert_eq!(told, clean);
    }
    let log = redact("{\"token\":\"x\"}\n{\"y\":1}\nno json\n");
    assert_eq!(log, "{\"token\":\"<redacted>\"}\n{\"y\":1}\nno json\n");
}

#[test]
fn a_key_in_pem_goes() {
    let text = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb\n";
    let clean = redact(text);
    assert!(
        !clean.contains("MIIE") && clean.ends_with("\nb\n"),
        "{clean}"
    );
}

#[test]
fn a_key_in_pem_whose_beginning_is_cut_off_goes() {
    let text = "MIIE\nabc=\n-----END RSA PRIVATE KEY-----\nb\n";
    let gone = format!("{INSTEAD}\n{INSTEAD}\n{INSTEAD}\nb\n");
    assert_eq!(redact(text), gone);
    let (begin, end) = ("-----BEGIN X-----", "-----END X-----");
    let next = format!("MIIE\n{end}{begin}\nabc\n{end}\nb");
    assert_eq!(
        redact(&next),
        format!("{INSTEAD}\n{INSTEAD}\n{INSTEAD}\n{INSTEAD}\nb")
    );
    let log = serde_json::json!({"msg": text}).to_string();
    assert!(!redact(&log).contains("MIIE"), "{}", redact(&log));
}

#[test]
fn a_value_above_its_name_goes_and_its_neighbours_stay() {
    for (text, clean) in [
        (
            "- value: kept\n  name: X\n- value: abc\n  name: TOKEN\n- value: kept\n  name: Y",
            "- value: kept\n  name: X\n- value: <redacted>\n  name: TOKEN\n- value: kept\n  name: Y",
        ),
        (
            "- value: |\n    abc\n  of:\n    name: x\n\n  name: TOKEN\nvalue: kept",
            "- value: <redacted>\n<redacted>\n  of:\n    name: x\n\n  name: TOKEN\nvalue: kept",
        ),
        (
            "- name: TOKEN\n  of:\n    name: x\n  value: abc",
            "- name: TOKEN\n  of:\n    name: x\n  value: <redacted>",
        ),
        (
            "{\n \"value\": \"abc\",\n \"name\": \"TOKEN\"\n},\n{\n \"value\": \"kept\"\n",
            "{\n \"value\": \"<redacted>\n \"name\": \"TOKEN\"\n},\n{\n \"value\": \"kept\"\n",
        ),
        (
            "x {\"value\":\"abc\",\"name\":\"TOKEN\"}",
            "x {\"value\":\"<redacted>",
        ),
    ] {
        assert_eq!(redact(text), clean);
    }
}

#[test]
fn an_argument_of_json_that_is_broken_goes() {
    for (text, clean) in [
        (
            "{\n \"args\": [\n  \"--token\",\n  \"abc\",\n  \"kept\"\n ],\n \"x\": 1,,\n}",
            "{\n \"args\": [\n  \"--token\",\n<redacted>\n  \"kept\"\n ],\n \"x\": 1,,\n}",
        ),
        (
            "  \"--token\"\n\n  \"a\\\":b\"\n  \"kept\"",
            "  \"--token\"\n\n<redacted>\n  \"kept\"",
        ),
        (
            "args: [\"-v\", \"--token\",\n  \"abc\"]\nkept: 1",
            "args: [\"-v\", \"--token\",\n<redacted>\nkept: 1",
        ),
        (
            " \"token\":\n \"abc\",\n \"kept\" : 1",
            " \"token\":<redacted>\n<redacted>\n \"kept\" : 1",
        ),
        (
            " \"token\": \"abc\",\n \"kept\": 1",
            " \"token\": \"<redacted>\n \"kept\": 1",
        ),
    ] {
        assert_eq!(redact(text), clean);
    }
}

#[test]
fn json_that_a_log_quotes_is_json() {
    let quoted =
        json!({"args": ["--token", "abc", "kept"], "env": [{"value": "abc", "name": "TOKEN"}]});
    for quoted in [
        quoted.to_string(),
        serde_json::to_string_pretty(&quoted).unwrap(),
    ] {
        let log = json!({"msg": quoted}).to_string();
        let told: Value = serde_json::from_str(&redact(&log)).unwrap();
        let told: Value = serde_json::from_str(told["msg"].as_str().unwrap()).unwrap();
        assert_eq!(
            told,
            json!({"args": ["--token", INSTEAD, "kept"], "env": [{"value": INSTEAD, "name": "TOKEN"}]})
        );
        let broken = json!({"msg": format!("{quoted},")}).to_string();
        assert!(!redact(&broken).contains("abc"), "{}", redact(&broken));
        let line = format!("level=info msg={}", json!(quoted));
        assert!(!redact(&line).contains("abc"), "{}", redact(&line));
    }
    let numbers = json!({"msg": "0123", "args": "[ 1, 2 ]"}).to_string();
    assert!(redact(&numbers).contains("0123"));
}
