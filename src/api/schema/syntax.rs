//! What is wrong with bytes that are no JSON, in the words of Go's scanner.
//!
//! Runs only after decoding failed, to find the fault again: `serde_json` knows the place but says it
//! differently.

use super::error::DecodeError;

/// The error for bytes that `serde_json` refused.
pub(crate) fn explain(bytes: &[u8], error: &serde_json::Error) -> DecodeError {
    if error.to_string().starts_with("recursion limit exceeded") {
        return DecodeError::Depth;
    }
    let mut scanner = Scanner { bytes, at: 0 };
    let fault = scanner.document().err();
    DecodeError::Syntax(fault.unwrap_or_else(|| error.to_string()))
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), String> {
        self.space();
        self.value("looking for beginning of value")?;
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.invalid("after top-level value")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The character at hand, quoted as Go does, in the place that `context` names.
    fn invalid(&self, context: &str) -> String {
        let Some(byte) = self.peek() else { return "unexpected end of JSON input".to_owned() };
        let quoted = match byte {
            b'\'' => r"'\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            b'\n' => r"'\n'".to_owned(),
            b'\r' => r"'\r'".to_owned(),
            b'\t' => r"'\t'".to_owned(),
            0x20..=0x7e | 0xa1..=0xac | 0xae..=0xff => format!("'{}'", char::from(byte)),
            0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
            0..=0x1f | 0x7f => format!(r"'\x{byte:02x}'"),
        };
        format!("invalid character {quoted} {context}")
    }

    fn expect(&mut self, byte: u8, context: &str) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(self.invalid(context));
        }
        self.at += 1;
        Ok(())
    }

    /// Containers are kept on a stack of our own: the input may be nested as deep as it is long.
    fn value(&mut self, context: &str) -> Result<(), String> {
        let mut open: Vec<u8> = Vec::new();
        let mut context = context;
        loop {
            self.space();
            let opened = match self.peek() {
                Some(b'{') => self.open(b'{', b'}', &mut open),
                Some(b'[') => self.open(b'[', b']', &mut open),
                Some(_) | None => {
                    self.scalar(context)?;
                    false
                }
            };
            if opened {
                if open.last() == Some(&b'{') {
                    self.key("looking for beginning of object key string")?;
                }
                context = "looking for beginning of value";
                continue;
            }
            if self.close(&mut open)? {
                return Ok(());
            }
            context = "looking for beginning of value";
        }
    }

    /// Enters a container; false when it is empty and already left.
    fn open(&mut self, bracket: u8, end: u8, open: &mut Vec<u8>) -> bool {
        self.at += 1;
        self.space();
        if self.peek() == Some(end) {
            self.at += 1;
            return false;
        }
        open.push(bracket);
        true
    }

    /// After a value: leaves containers up to the next value; true at the end of the document.
    fn close(&mut self, open: &mut Vec<u8>) -> Result<bool, String> {
        while let Some(bracket) = open.last() {
            self.space();
            let (end, context) = match bracket {
                b'{' => (b'}', "after object key:value pair"),
                _ => (b']', "after array element"),
            };
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if *bracket == b'{' {
                        self.space();
                        self.key("looking for beginning of object key string")?;
                    }
                    return Ok(false);
                }
                Some(byte) if byte == end => {
                    self.at += 1;
                    open.pop();
                }
                Some(_) | None => return Err(self.invalid(context)),
            }
        }
        Ok(true)
    }

    fn key(&mut self, context: &str) -> Result<(), String> {
        if self.peek() != Some(b'"') {
            return Err(self.invalid(context));
        }
        self.string()?;
        self.space();
        self.expect(b':', "after object key")
    }

    fn scalar(&mut self, context: &str) -> Result<(), String> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) | None => Err(self.invalid(context)),
        }
    }

    fn literal(&mut self, literal: &str) -> Result<(), String> {
        for letter in literal.bytes() {
            if self.peek() != Some(letter) {
                return Err(self.invalid(&format!("in literal {literal} (expecting '{}')", char::from(letter))));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            Some(_) | None => return Err(self.invalid("in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn some_digits(&mut self, context: &str) -> Result<(), String> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Err(self.invalid(context));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(0x20..) => self.at += 1,
                Some(_) | None => return Err(self.invalid("in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|b| b.is_ascii_hexdigit()) {
                        return Err(self.invalid("in \\u hexadecimal character escape"));
                    }
                    self.at += 1;
                }
            }
            Some(_) | None => return Err(self.invalid("in string escape code")),
        }
        Ok(())
    }
}
