//! What is taken out of a dump: the values of whatever is called a secret.

use serde_json::Value;

/// A key that has one of these in it has a secret as its value.
const SECRET: [&str; 12] = [
    "authorization",
    "cookie",
    "credential",
    "key",
    "passphrase",
    "passwd",
    "password",
    "private",
    "pwd",
    "secret",
    "signature",
    "token",
];
const INSTEAD: &str = "<redacted>";
/// What is not part of a key that is not quoted.
const AROUND_KEYS: &[char] = &[
    ' ', '\t', '"', '\'', ';', ',', '&', '?', '/', '(', '[', '{', '}', ']', ')',
];
/// What ends a value in a URL. Elsewhere, nothing but its line does: a password may have anything in it.
const URL_ENDS: &[char] = &[' ', '\t', '"', '\'', '<', '>', '&', '#'];

/// The text without secrets: as JSON where it is JSON, else by its lines.
pub(super) fn redact(text: &str) -> String {
    json(text).map_or_else(|| lines(text), |clean| clean + "\n")
}

fn json(text: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    scrub(&mut value);
    serde_json::to_string_pretty(&value).ok()
}

/// A line of a log.
fn json_line(line: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(line).ok()?;
    value.is_object().then(|| scrub(&mut value))?;
    serde_json::to_string(&value).ok()
}

fn scrub(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if is_secret(key) && !value.is_null() {
                    *value = INSTEAD.into();
                } else {
                    scrub(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(scrub),
        Value::String(text) => *text = lines(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn lines(text: &str) -> String {
    let mut in_pem = false;
    // How far the key of a secret is indented: what is deeper is its value, too.
    let mut secret: Option<usize> = None;
    let clean = text.split('\n').map(|line| {
        // A key in PEM has lines of its own.
        in_pem |= line.contains("-----BEGIN ");
        if in_pem {
            in_pem = !line.contains("-----END ");
            return INSTEAD.to_owned();
        }
        if line.trim().is_empty() {
            return line.to_owned();
        }
        if secret.is_some_and(|key| indentation(line, false) > key || is_item(line, key)) {
            return INSTEAD.to_owned();
        }
        secret = None;
        json_line(line).unwrap_or_else(|| {
            let (clean, ends_secret) = plain(&without_userinfo(line));
            secret = ends_secret.then(|| indentation(line, true));
            clean
        })
    });
    clean.collect::<Vec<_>>().join("\n")
}

/// Where the text of a line begins; in YAML, a key in a list begins behind the `- `.
fn indentation(line: &str, is_key: bool) -> usize {
    let blank = |c: char| c.is_whitespace() || (is_key && c == '-');
    line.len() - line.trim_start_matches(blank).len()
}

/// YAML lets the items of a list stand right below their key.
fn is_item(line: &str, key: usize) -> bool {
    indentation(line, false) == key && line.trim_start().starts_with("- ")
}

/// `TOKEN=abc`, `password: a b c`, `--token abc`, and whether the line ends with the secret.
fn plain(line: &str) -> (String, bool) {
    let mut clean = String::new();
    let mut rest = line;
    let word = |text: &str| {
        let start = text.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        text.get(start..).unwrap_or_default().to_owned()
    };
    while let Some((at, separator)) = rest.char_indices().find(|(at, c)| {
        let before = rest.get(..*at).unwrap_or_default();
        [':', '='].contains(c) || (*c == ' ' && word(before).starts_with("--"))
    }) {
        let (before, after) = rest.split_at(at);
        clean += before;
        let key = clean.trim_end_matches([' ', '"', '\'']);
        let key = key.rsplit(AROUND_KEYS).next().unwrap_or_default();
        let (is_secret, is_url) = (is_secret(key), word(&clean).contains("://"));
        clean.push(separator);
        rest = after.get(separator.len_utf8()..).unwrap_or_default();
        if !is_secret {
            continue;
        }
        let value = rest.trim_start_matches([' ', '"', '\'']);
        clean += rest.get(..rest.len() - value.len()).unwrap_or_default();
        clean += INSTEAD;
        if !is_url {
            return (clean, true);
        }
        rest = value
            .find(URL_ENDS)
            .and_then(|end| value.get(end..))
            .unwrap_or_default();
    }
    (clean + rest, false)
}

/// `https://user:password@host` without what is before the `@`.
fn without_userinfo(line: &str) -> String {
    const SCHEME: &str = "://";
    let mut parts = line.split(SCHEME);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean += SCHEME;
        let authority = part.find(['/', '?', ' ', '\t', '"', '\'', '<', '>']);
        let (authority, after) = part.split_at(authority.unwrap_or(part.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => clean.extend([INSTEAD, "@", host]),
            None => clean += authority,
        }
        clean += after;
    }
    clean
}

/// What is just called `key` is one of a map, or an attachment's.
fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    let is_signature = key.rsplit(['-', '_']).next() == Some("sig");
    is_signature || (key != "key" && SECRET.iter().any(|word| key.contains(word)))
}

#[cfg(test)]
mod tests {
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
            serde_json::json!({"a": {"authToken": INSTEAD, "b": ["K=1;password=<redacted>", "a\npwd: <redacted>\nc"],
                "key": {"ifname": "eth0"}}, "secretRef": null})
        );
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
}
