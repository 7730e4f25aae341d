//! What is taken out of a dump: the values of whatever is called a secret.

use serde_json::Value;

/// A key that has one of these in it has a secret as its value.
const SECRET: [&str; 10] = [
    "secret",
    "token",
    "password",
    "passwd",
    "credential",
    "authorization",
    "private",
    "apikey",
    "api_key",
    "accountkey",
];
const INSTEAD: &str = "<redacted>";
/// What ends a value.
const ENDS: &[char] = &[' ', '\t', '"', '\'', ';', ',', '&', ')', '}', ']'];

/// The text without secrets: as JSON where it is JSON, else by its lines.
pub(super) fn redact(text: &str) -> String {
    if let Some(clean) = json(text) {
        return clean + "\n";
    }
    let mut clean = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.lines() {
        // A key in PEM has lines of its own.
        in_key |= line.contains("-----BEGIN ");
        if in_key {
            clean += INSTEAD;
            in_key = !line.contains("-----END ");
        } else {
            clean += &json_line(line).unwrap_or_else(|| plain(line));
        }
        clean.push('\n');
    }
    clean
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
        Value::String(text) => *text = plain(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `TOKEN=abc;X=1`, `password: abc`, `Authorization: Bearer abc`.
fn plain(line: &str) -> String {
    let mut clean = String::new();
    let mut rest = line;
    while let Some((at, separator)) = rest.char_indices().find(|(_, c)| [':', '='].contains(c)) {
        let (before, after) = rest.split_at(at);
        clean += before;
        clean.push(separator);
        rest = after.get(separator.len_utf8()..).unwrap_or_default();
        let key = before.trim_end_matches([' ', '"', '\'']);
        let key = key.rsplit(ENDS).next().unwrap_or_default();
        if is_secret(key) {
            let value = rest.trim_start_matches([' ', '"', '\'']);
            clean += rest.get(..rest.len() - value.len()).unwrap_or_default();
            let value = ["Bearer ", "Basic "]
                .iter()
                .find_map(|kind| value.strip_prefix(kind))
                .unwrap_or(value);
            clean += INSTEAD;
            rest = value
                .find(ENDS)
                .and_then(|end| value.get(end..))
                .unwrap_or_default();
        }
    }
    clean + rest
}

fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    key == "sig" || SECRET.iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (text, clean) in [
            (
                "K8S_POD_NAME=token-x;TOKEN=abc;X=1",
                "K8S_POD_NAME=token-x;TOKEN=<redacted>;X=1",
            ),
            ("password: hunter2", "password: <redacted>"),
            ("clientSecret = \"a b\"", "clientSecret = \"<redacted> b\""),
            (
                "Authorization: Bearer abc, next",
                "Authorization: <redacted>, next",
            ),
            (
                "https://x/y?sv=1&sig=abc%3D&x=2",
                "https://x/y?sv=1&sig=<redacted>&x=2",
            ),
            (
                "default/token-service 10.240.1.10",
                "default/token-service 10.240.1.10",
            ),
            (
                "12: array  name secret  flags 0x0",
                "12: array  name secret  flags 0x0",
            ),
        ] {
            assert_eq!(redact(text), format!("{clean}\n"));
        }
    }

    #[test]
    fn json_keeps_its_shape() {
        let clean =
            redact(r#"{"a": {"authToken": "x", "b": ["K=1;password=y"]}, "secretRef": null}"#);
        let clean: Value = serde_json::from_str(&clean).unwrap();
        assert_eq!(
            clean,
            serde_json::json!({"a": {"authToken": INSTEAD, "b": ["K=1;password=<redacted>"]}, "secretRef": null})
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
