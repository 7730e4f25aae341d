//! Where in a JSON text a value stands. The text is known to be JSON.

/// The line, from 1, of the key that `path` leads to, or of the deepest one on the way that is there. List items are numbers.
pub(crate) fn line_of(text: &str, path: &[String]) -> usize {
    let mut scan = Scan {
        bytes: text.as_bytes(),
        at: 0,
    };
    let found = scan.find(path).unwrap_or(0);
    let before = text.get(..found).unwrap_or_default();
    1 + before.matches('\n').count()
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// The offset of the deepest member of `path` in the value that begins here. Of equal keys the last counts.
    fn find(&mut self, path: &[String]) -> Option<usize> {
        self.skip_space();
        let (wanted, rest) = path.split_first()?;
        let in_list = match self.peek()? {
            b'{' => false,
            b'[' => true,
            _ => return None,
        };
        self.at += 1;
        let mut found = None;
        for index in 0_usize.. {
            self.skip_space();
            if matches!(self.peek(), None | Some(b'}' | b']')) {
                break;
            }
            let start = self.at;
            let is_it = if in_list {
                index.to_string() == *wanted
            } else {
                let key = self.text();
                self.skip_space();
                self.at += 1; // the colon
                key.eq_ignore_ascii_case(wanted)
            };
            if is_it {
                let value = self.at;
                found = Some(self.find(rest).unwrap_or(start));
                self.at = value;
            }
            self.skip_value();
            self.skip_space();
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        found
    }

    /// A string's content, escapes as they are.
    fn text(&mut self) -> String {
        let start = self.at + 1;
        self.at = start;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let content = self.bytes.get(start..self.at).unwrap_or_default();
        self.at += 1;
        String::from_utf8_lossy(content).into_owned()
    }

    fn skip_value(&mut self) {
        self.skip_space();
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.text();
                    if depth == 0 {
                        return;
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' | b',' if depth == 0 => return,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return;
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
  "name": "a", "note": "}],{\"x\": [",
  "plugins": [
    {"type": "azure-vnet",
     "IPAM": {
        "type": "x",
        "subnet": "y" } },
    { "type":
      "portmap"} ],
  "last": 5
}"#;

    #[test]
    fn a_path_leads_to_its_line_in_any_case_and_else_to_the_nearest() {
        for (path, line) in [
            ("", 1),
            ("name", 2),
            ("plugins", 3),
            ("plugins 0", 4),
            ("plugins 0 type", 4),
            ("plugins 0 ipam subnet", 7),
            ("plugins 0 ipam missing", 5),
            ("plugins 1 type", 8),
            ("plugins 7 type", 3),
            ("last", 10),
            ("nothing", 1),
        ] {
            let steps: Vec<String> = path.split_whitespace().map(str::to_owned).collect();
            assert_eq!(line_of(TEXT, &steps), line, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_hangs_or_panics(text in ".{0,60}") {
            line_of(&text, &["a".to_owned(), "0".to_owned()]);
        }
    }
}
