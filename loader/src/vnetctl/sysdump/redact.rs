//! What is taken out of a dump: the values of whatever is called a secret.

mod beside;

use serde_json::Value;

use beside::beside;

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
    ' ', '\t', '"', '\'', '\\', ';', ',', '&', '?', '/', '(', '[', '{', '}', ']', ')',
];
/// What is around keys and values; what quotes JSON has a `\` before each quote.
const QUOTES: &[char] = &[' ', '"', '\'', '\\'];
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

/// A line of a log, or what a field of it quotes.
fn json_line(line: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(line).ok()?;
    (value.is_object() || value.is_array()).then(|| scrub(&mut value))?;
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
        Value::String(text) => *text = json_line(text).unwrap_or_else(|| lines(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn lines(text: &str) -> String {
    let mut in_pem = begins_in_pem(text);
    // How far the key of a secret is indented: what is deeper is its value, too.
    let mut secret: Option<usize> = None;
    // And an argument, whose value is the next item.
    let mut flag: Option<usize> = None;
    let lines: Vec<&str> = text.split('\n').collect();
    let clean = lines.iter().zip(beside(&lines)).map(|(line, is_beside)| {
        // A key in PEM has lines of its own.
        let (begin, end) = (line.rfind(PEM_BEGIN), line.rfind(PEM_END));
        if in_pem || begin.is_some() {
            in_pem = (in_pem && end.is_none()) || begin > end;
            return INSTEAD.to_owned();
        }
        if line.trim().is_empty() {
            return (*line).to_owned();
        }
        if secret.is_some_and(|key| is_below(line, key)) {
            return INSTEAD.to_owned();
        }
        secret = None;
        if let Some(key) = flag.take().filter(|key| is_below(line, *key)) {
            // What is below it is deeper than its dash or quote.
            secret = Some(key + 1);
            return INSTEAD.to_owned();
        }
        json_line(line).unwrap_or_else(|| {
            let plain = plain(&without_userinfo(line), is_beside);
            secret = plain.ends_secret.then(|| indentation(line, true));
            flag = ends_flag(line).then(|| indentation(line, false));
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
fn is_below(line: &str, key: usize) -> bool {
    let at = indentation(line, false);
    at > key || (at == key && is_item(line))
}

/// An item of a list: in YAML, or a string in JSON that is no key.
fn is_item(line: &str) -> bool {
    let mut text = line.trim().chars();
    match text.next() {
        Some('-') => text.next() == Some(' '),
        Some(quote @ ('"' | '\'')) => {
            let mut is_escaped = false;
            let ends = |c| {
                let ends = c == quote && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                ends
            };
            text.position(ends).is_none() || !text.as_str().trim_start().starts_with(':')
        }
        _ => false,
    }
}

/// Whether a line is an item, or ends with one, that is an argument whose value is the next item.
fn ends_flag(line: &str) -> bool {
    let text = line.trim_end();
    let is_flag = is_secret_flag(last_word(text.trim_end_matches(',')));
    is_flag && (is_item(text) || text.ends_with(','))
}

/// A line that is no JSON.
struct Plain {
    clean: String,
    /// A secret goes on in the next line, if that is indented.
    ends_secret: bool,
}

/// `TOKEN=abc`, `password: a b c`, `--token abc`, `"name": "TOKEN", "value": "abc"`. `is_beside`: its values are a secret's.
fn plain(line: &str, is_beside: bool) -> Plain {
    let mut told = Plain {
        clean: String::new(),
        ends_secret: false,
    };
    let mut rest = line;
    while let Some((at, separator)) = rest.char_indices().find(|(at, c)| {
        let (before, after) = rest.split_at(*at);
        // Behind the last `,` of a line is no value: that is in the next one.
        let has_value = || after.trim_end() != ",";
        [':', '='].contains(c)
            || ([' ', ','].contains(c) && is_secret_flag(last_word(before)) && has_value())
    }) {
        let (before, after) = rest.split_at(at);
        told.clean += before;
        let key = key_before(&told.clean);
        let is_value = is_beside && is_one_of(key, &VALUES);
        let is_secret = is_value || is_secret(key) || [' ', ','].contains(&separator);
        let is_url = last_word(&told.clean).contains("://");
        told.clean.push(separator);
        rest = after.get(separator.len_utf8()..).unwrap_or_default();
        if !is_secret {
            continue;
        }
        let value = rest.trim_start_matches(QUOTES);
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

/// The key in front of a `:` or `=`.
fn key_before(text: &str) -> &str {
    let text = text.trim_end_matches(QUOTES);
    text.rsplit(AROUND_KEYS).next().unwrap_or_default()
}

fn last_word(text: &str) -> &str {
    let start = text.rfind([' ', '\t', ',', '[']).map_or(0, |at| at + 1);
    text.get(start..).unwrap_or_default()
}

/// `--token`, `"-token"`: an argument whose value comes next.
fn is_secret_flag(word: &str) -> bool {
    let word = word.trim_matches(QUOTES);
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
