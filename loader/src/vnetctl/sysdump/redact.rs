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
/// Names of the fields that say what the field beside them is called, and of that one.
const NAMES: [&str; 2] = ["key", "name"];
const VALUES: [&str; 2] = ["value", "values"];
const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";
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
            let names_secret = fields.iter().any(|(key, value)| {
                is_one_of(key, &NAMES) && value.as_str().is_some_and(is_secret)
            });
            for (key, value) in fields {
                let is_named = names_secret && is_one_of(key, &VALUES);
                if (is_named || is_secret(key)) && !value.is_null() {
                    *value = INSTEAD.into();
                } else {
                    scrub(value);
                }
            }
        }
        Value::Array(values) => {
            let mut is_flags = false;
            for value in values {
                let is_flag = value.as_str().is_some_and(is_secret_flag);
                if is_flags && !is_flag {
                    *value = INSTEAD.into();
                } else {
                    scrub(value);
                }
                is_flags = is_flag;
            }
        }
        Value::String(text) => *text = lines(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn lines(text: &str) -> String {
    let mut in_pem = begins_in_pem(text);
    // How far the key of a secret is indented: what is deeper is its value, too.
    let mut secret: Option<usize> = None;
    // And the name of one, whose value stands beside it, or an argument, whose value is the next item.
    let (mut named, mut flag): (Option<usize>, Option<usize>) = (None, None);
    let clean = text.split('\n').map(|line| {
        // A key in PEM has lines of its own.
        let (begin, end) = (line.rfind(PEM_BEGIN), line.rfind(PEM_END));
        if in_pem || begin.is_some() {
            in_pem = (in_pem && end.is_none()) || begin > end;
            return INSTEAD.to_owned();
        }
        if line.trim().is_empty() {
            return line.to_owned();
        }
        if secret.is_some_and(|key| indentation(line, false) > key || is_item(line, key)) {
            return INSTEAD.to_owned();
        }
        secret = None;
        if let Some(key) = flag.take().filter(|key| is_item(line, *key)) {
            // What is below it is deeper than its dash.
            secret = Some(key + 1);
            return INSTEAD.to_owned();
        }
        json_line(line).unwrap_or_else(|| {
            let at = indentation(line, true);
            let is_beside = named.is_some_and(|name| name == at);
            let plain = plain(&without_userinfo(line), is_beside);
            secret = plain.ends_secret.then_some(at);
            flag = plain.ends_flag.then(|| indentation(line, false));
            if plain.names_secret || named.is_some_and(|name| at <= name) {
                named = plain.names_secret.then_some(at);
            }
            plain.clean
        })
    });
    clean.collect::<Vec<_>>().join("\n")
}

/// Whether the text is the end of a longer one, and the cut was in a key: that has an end here, and no beginning.
fn begins_in_pem(text: &str) -> bool {
    let begin = text.find(PEM_BEGIN);
    text.find(PEM_END)
        .is_some_and(|end| begin.is_none_or(|begin| end < begin))
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

/// A line that is no JSON.
struct Plain {
    clean: String,
    /// A secret goes on in the next line, if that is indented.
    ends_secret: bool,
    /// It is an item of a list: an argument whose value is the next one.
    ends_flag: bool,
    /// Its last name is that of a secret.
    names_secret: bool,
}

/// `TOKEN=abc`, `password: a b c`, `--token abc`, `"name": "TOKEN", "value": "abc"`. `is_beside`: the name of a secret stands above.
fn plain(line: &str, is_beside: bool) -> Plain {
    let mut told = Plain {
        clean: String::new(),
        ends_secret: false,
        ends_flag: line.trim_start().starts_with("- ") && is_secret_flag(last_word(line)),
        names_secret: is_beside,
    };
    let mut rest = line;
    while let Some((at, separator)) = rest.char_indices().find(|(at, c)| {
        let before = rest.get(..*at).unwrap_or_default();
        [':', '='].contains(c) || ([' ', ','].contains(c) && is_secret_flag(last_word(before)))
    }) {
        let (before, after) = rest.split_at(at);
        told.clean += before;
        let key = told.clean.trim_end_matches([' ', '"', '\'']);
        let key = key.rsplit(AROUND_KEYS).next().unwrap_or_default();
        let is_value = told.names_secret && is_one_of(key, &VALUES);
        let is_secret = is_value || is_secret(key) || [' ', ','].contains(&separator);
        let (is_name, is_url) = (
            is_one_of(key, &NAMES),
            last_word(&told.clean).contains("://"),
        );
        told.clean.push(separator);
        rest = after.get(separator.len_utf8()..).unwrap_or_default();
        if is_name {
            let name = rest.trim_start_matches([' ', '"', '\'']);
            let name = name.split(AROUND_KEYS).next().unwrap_or_default();
            told.names_secret = self::is_secret(name);
        }
        if !is_secret {
            continue;
        }
        let value = rest.trim_start_matches([' ', '"', '\'']);
        told.clean += rest.get(..rest.len() - value.len()).unwrap_or_default();
        told.clean += INSTEAD;
        if !is_url {
            told.ends_secret = true;
            return told;
        }
        rest = value
            .find(URL_ENDS)
            .and_then(|end| value.get(end..))
            .unwrap_or_default();
    }
    told.clean += rest;
    told
}

fn last_word(text: &str) -> &str {
    let start = text.rfind([' ', '\t', ',', '[']).map_or(0, |at| at + 1);
    text.get(start..).unwrap_or_default()
}

/// `--token`, `"-token"`: an argument whose value comes next.
fn is_secret_flag(word: &str) -> bool {
    let word = word.trim_matches(['"', '\'']);
    word.strip_prefix('-')
        .is_some_and(|name| !name.contains(['=', ' ']) && is_secret(name))
}

fn is_one_of(key: &str, words: &[&str]) -> bool {
    words.iter().any(|word| key.eq_ignore_ascii_case(word))
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
mod tests;
