//! From text to tokens. One pass, bounded.

use crate::math::command::{character, plain_word};
use crate::math::latex::{argument, bounded};
use crate::math::token::{Brackets, Fence, Token, Unread};
use crate::math::unit::is_unit;
use crate::math::value::Sign;
use crate::number::Separators;
use crate::number::glyph;

/// The longest answer that is read, in bytes and in tokens.
pub(crate) const MAX_BYTES: usize = 8192;
const MAX_TOKENS: usize = 2048;
/// Letters in a row from here on are a word; fewer are a product, `abc`, unless they are a unit.
const WORD_LETTERS: usize = 4;

pub(crate) const LONG: Unread = Unread::Bound("the answer is too long to be read as mathematics");

/// The tokens of a text.
pub(crate) fn tokens(text: &str, separators: Separators) -> Result<Vec<Token>, Unread> {
    if text.len() > MAX_BYTES {
        return Err(LONG);
    }
    let mut lexer = Lexer {
        tokens: Vec::new(),
        separators,
        depth: 0,
        groups: 0,
        arguments: Vec::new(),
        matrices: Vec::new(),
    };
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = lexer.step(rest, c)?;
        if lexer.tokens.len() > MAX_TOKENS {
            return Err(LONG);
        }
    }
    Ok(lexer.tokens)
}

pub(crate) struct Lexer {
    tokens: Vec<Token>,
    pub(crate) separators: Separators,
    /// Open brackets in which a comma separates.
    pub(crate) depth: usize,
    /// Open `{`.
    pub(crate) groups: usize,
    /// For each command that waits for arguments: in which group, and for how many. A bare digit is
    /// one argument.
    pub(crate) arguments: Vec<(usize, u8)>,
    pub(crate) matrices: Vec<Brackets>,
}

impl Lexer {
    /// Reads what `rest` begins with, `c` being its first character, and returns what follows.
    pub(crate) fn step<'t>(&mut self, rest: &'t str, c: char) -> Result<&'t str, Unread> {
        let after = &rest[c.len_utf8()..];
        match c {
            '\\' => return self.backslash(after),
            '0'..='9' => return self.number(rest),
            '.' if after.starts_with(|c: char| c.is_ascii_digit()) => return self.number(rest),
            'a'..='z' | 'A'..='Z' => return self.letters(rest),
            '_' => return self.subscript(after),
            '{' => {
                self.open(Fence::Group);
                self.groups += 1;
            }
            '}' => {
                self.groups = self.groups.saturating_sub(1);
                self.push(Token::Close(Fence::Group));
            }
            '*' if after.starts_with('*') => {
                self.push(Token::Caret);
                return Ok(&after[1..]);
            }
            '<' | '>' | '!' | '=' => return Ok(self.sign(c, after)),
            '\'' | '’' | '′' => self.prime(),
            // White space, formula marks, quotes, word joiners; a full stop that is no decimal
            // point.
            '$'
            | '~'
            | '"'
            | '“'
            | '”'
            | '`'
            | '.'
            | '。'
            | '\u{200B}'..='\u{200F}'
            | '\u{2060}'
            | '\u{FEFF}' => {}
            _ if c.is_whitespace() => {}
            _ => return self.other(rest, c),
        }
        Ok(after)
    }

    pub(crate) fn push(&mut self, token: Token) {
        let ends = !matches!(token, Token::Open(Fence::Group));
        if let Some((group, left)) = self.arguments.last_mut() {
            if *group == self.groups && ends {
                *left -= 1;
            }
            if *left == 0 || *group > self.groups {
                self.arguments.pop();
            }
        }
        let count = match token {
            Token::Frac | Token::Binom => 2,
            Token::Sqrt => 1,
            _ => 0,
        };
        self.tokens.push(token);
        if count > 0 {
            self.arguments.push((self.groups, count));
        }
    }

    /// Outside LaTeX the argument of a root is a whole number: `sqrt12`.
    fn push_plain(&mut self, token: Token) {
        let root = token == Token::Sqrt;
        self.push(token);
        if root {
            self.arguments.pop();
        }
    }

    pub(crate) fn open(&mut self, fence: Fence) {
        self.depth += usize::from(fence != Fence::Group);
        self.push(Token::Open(fence));
    }

    pub(crate) fn close(&mut self, fence: Fence) {
        self.depth = self.depth.saturating_sub(1);
        self.push(Token::Close(fence));
    }

    /// ASCII marks, and what other scripts write.
    fn other<'t>(&mut self, rest: &'t str, c: char) -> Result<&'t str, Unread> {
        let after = &rest[c.len_utf8()..];
        match c {
            '+' => self.push(Token::Plus),
            '-' => self.push(Token::Minus),
            '*' => self.push(Token::Times),
            '/' => self.push(Token::Divide),
            '^' => self.push(Token::Caret),
            ',' => self.push(Token::Comma),
            ';' => self.push(Token::Semicolon),
            ':' => self.push(Token::Colon),
            '%' => self.push(Token::Percent),
            '|' => self.push(Token::Bar),
            '(' => self.open(Fence::Round),
            ')' => self.close(Fence::Round),
            '[' => self.open(Fence::Square),
            ']' => self.close(Fence::Square),
            '&' => self.cell(),
            _ => return self.unicode(rest, c),
        }
        Ok(after)
    }

    fn unicode<'t>(&mut self, rest: &'t str, c: char) -> Result<&'t str, Unread> {
        let after = &rest[c.len_utf8()..];
        if let Some(token) = character(c) {
            self.push_plain(token);
        } else if glyph::digit(c).is_some() {
            // Digits of other scripts: read them as ASCII.
            let length: usize =
                rest.chars().take_while(|&c| glyph::digit(c).is_some()).map(char::len_utf8).sum();
            let digits: String = rest[..length].chars().filter_map(glyph::digit).collect();
            self.literal(&digits, "", false)?;
            return Ok(&rest[length..]);
        } else if let Some((over, under)) = glyph::vulgar_fraction(c) {
            self.push(Token::Frac);
            self.literal(over, "", false)?;
            self.literal(under, "", false)?;
        } else if glyph::superscript(c).is_some() {
            let raised = rest.chars().take_while(|&c| glyph::superscript(c).is_some());
            let length: usize = raised.clone().map(char::len_utf8).sum();
            let text: String = raised.filter_map(glyph::superscript).collect();
            self.exponent(&text)?;
            return Ok(&rest[length..]);
        } else if crate::number::quantity::is_currency(c) {
            self.push(Token::Text(c.to_string()));
        } else if c.is_alphabetic() {
            let length: usize =
                rest.chars().take_while(|c| c.is_alphabetic()).map(char::len_utf8).sum();
            self.push(Token::Word(bounded(&rest[..length])?.to_owned()));
            return Ok(&rest[length..]);
        } else {
            return Err(Unread::Syntax);
        }
        Ok(after)
    }

    fn sign<'t>(&mut self, c: char, after: &'t str) -> &'t str {
        let equal = after.starts_with('=');
        self.push(match (c, equal) {
            ('<', false) => Token::Sign(Sign::Less),
            ('<', true) => Token::Sign(Sign::LessOrEqual),
            ('>', false) => Token::Sign(Sign::Greater),
            ('>', true) => Token::Sign(Sign::GreaterOrEqual),
            ('!', true) => Token::Sign(Sign::Unequal),
            ('!', false) => Token::Bang,
            _ => Token::Sign(Sign::Equal),
        });
        if equal { &after[1..] } else { after }
    }

    /// `f'`
    fn prime(&mut self) {
        if let Some(Token::Letter(name)) = self.tokens.last_mut() {
            name.push('\'');
        }
    }

    fn cell(&mut self) {
        match self.matrices.last() {
            Some(Brackets::Lines) | None => {}
            Some(_) => self.push(Token::Cell),
        }
    }

    pub(crate) fn row(&mut self) {
        match self.matrices.last() {
            Some(Brackets::Lines) | None => self.push(Token::Comma),
            Some(_) => self.push(Token::Row),
        }
    }

    /// A run of letters: a word, a unit, a function, or variables.
    fn letters<'t>(&mut self, rest: &'t str) -> Result<&'t str, Unread> {
        let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, after) = rest.split_at(length);
        let word = bounded(word)?;
        if word.len() == 1 {
            self.push(Token::Letter(word.to_owned()));
        } else if let Some(token) = plain_word(word) {
            self.push_plain(token);
        } else if word.len() >= WORD_LETTERS || is_unit(word) {
            self.push(Token::Word(word.to_owned()));
        } else {
            for letter in word.chars() {
                self.push(Token::Letter(letter.to_string()));
            }
        }
        Ok(after)
    }

    /// A subscript belongs to the name before it; a logarithm's is its base.
    fn subscript<'t>(&mut self, after: &'t str) -> Result<&'t str, Unread> {
        let after = after.trim_start();
        match self.tokens.last_mut() {
            Some(Token::Letter(name) | Token::Text(name)) => {
                let (index, after) = argument(after).ok_or(Unread::Syntax)?;
                name.push('_');
                name.extend(
                    bounded(index)?.chars().filter(|c| !c.is_whitespace() && !"{}\\".contains(*c)),
                );
                Ok(after)
            }
            Some(Token::Number(_)) => {
                let (base, after) = argument(after).ok_or(Unread::Syntax)?;
                self.push(Token::Text(format!("base {}", bounded(base)?.trim())));
                Ok(after)
            }
            Some(Token::Log) => {
                self.push(Token::Underscore);
                self.arguments.push((self.groups, 1));
                Ok(after)
            }
            _ => Err(Unread::Syntax),
        }
    }
}
