//! The grammar above arithmetic: lists, relations, sets.
//!
//! ```text
//! list     := item (("," | ";" | "and" | "or") item)*
//! item     := operation (sign operation)*
//! operation := sum (("∪" | "∩" | "∖") sum)*
//! ```
//!
//! `sum` and below are in [`arithmetic`](crate::math::arithmetic) and
//! [`primary`](crate::math::primary).

use crate::math::lexer::tokens;
use crate::math::operators::quotient;
use crate::math::token::{Fence, Token, Unread};
use crate::math::value::{Joint, Relation, Sign, Value};
use crate::number::Separators;

/// How deep brackets, arguments and exponents may nest: each level is a few small stack frames.
const MAX_DEPTH: u32 = 48;
/// The most members of a list.
pub(crate) const MAX_MEMBERS: usize = 128;

const DEEP: Unread = Unread::Bound("the answer is nested too deeply");
const MANY: Unread = Unread::Bound("the answer has too many members");

/// What the whole of `text` denotes.
pub(crate) fn parse(text: &str, separators: Separators) -> Result<Value, Unread> {
    let tokens = tokens(text, separators)?;
    let mut parser = Parser::new(&tokens);
    let value = parser.list(true)?;
    if parser.at < tokens.len() { Err(Unread::Syntax) } else { Ok(value) }
}

pub(crate) struct Parser<'t> {
    tokens: &'t [Token],
    pub at: usize,
    depth: u32,
    /// Open absolute values: a bar closes one.
    pub bars: u32,
    /// What `±` stands for now, and whether there was one.
    lower: bool,
    signed: bool,
}

impl<'t> Parser<'t> {
    fn new(tokens: &'t [Token]) -> Self {
        Self { tokens, at: 0, depth: 0, bars: 0, lower: false, signed: false }
    }

    pub fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.at)
    }

    pub fn peek_at(&self, ahead: usize) -> Option<&'t Token> {
        self.tokens.get(self.at + ahead)
    }

    /// Whether the token that was read last satisfies `is`.
    pub fn read(&self, is: impl Fn(&Token) -> bool) -> bool {
        self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).is_some_and(is)
    }

    pub fn next(&mut self) -> Option<&'t Token> {
        let token = self.peek();
        self.at += 1;
        token
    }

    /// Goes on past `token` if it is next.
    pub fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, token: &Token) -> Result<(), Unread> {
        if self.eat(token) { Ok(()) } else { Err(Unread::Syntax) }
    }

    /// One level deeper.
    pub fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unread>,
    ) -> Result<T, Unread> {
        if self.depth >= MAX_DEPTH {
            return Err(DEEP);
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// Whether `±` is a minus here.
    pub fn plus_minus(&mut self, upper_is_minus: bool) -> bool {
        self.signed = true;
        self.lower != upper_is_minus
    }

    /// A list, or its only member. `outermost`: a member with a `±` is two.
    pub fn list(&mut self, outermost: bool) -> Result<Value, Unread> {
        let (members, joint) = self.members(outermost)?;
        Ok(gathered(members, joint))
    }

    /// The members of a list up to what is none of it. Members that semicolons part are lists of
    /// their own.
    pub fn members(&mut self, outermost: bool) -> Result<(Vec<Value>, Joint), Unread> {
        let mut lists = vec![Vec::new()];
        let (mut joint, mut count) = (Joint::Or, 0);
        loop {
            let members = if outermost { self.both_signs()? } else { vec![self.item()?] };
            count += members.len();
            if count > MAX_MEMBERS {
                return Err(MANY);
            }
            if let Some(last) = lists.last_mut() {
                last.extend(members);
            }
            let Some(separator) = self.separator() else { break };
            if separator != Separator::Or {
                joint = Joint::Comma;
            }
            if separator == Separator::Semicolon {
                lists.push(Vec::new());
            }
            if self.peek().is_none_or(|token| matches!(token, Token::Close(_))) {
                break;
            }
        }
        Ok((parted(lists), joint))
    }

    /// One separator, or several in a row: `, and`.
    fn separator(&mut self) -> Option<Separator> {
        let mut found = None;
        while let Some(next) = self.peek().and_then(Separator::of) {
            self.at += 1;
            // A list's kind is that of the word, not of the comma before it; a semicolon is the
            // strongest.
            found = Some(found.map_or(next, |before: Separator| before.max(next)));
        }
        found
    }

    /// An item; two where it has a `±`.
    fn both_signs(&mut self) -> Result<Vec<Value>, Unread> {
        let start = self.at;
        self.signed = false;
        let upper = self.item()?;
        if !std::mem::take(&mut self.signed) {
            return Ok(vec![upper]);
        }
        self.at = start;
        self.lower = true;
        let lower = self.item();
        (self.lower, self.signed) = (false, false);
        Ok(match (upper, lower?) {
            // `{±1}` is one set.
            (Value::Set(mut upper, joint), Value::Set(lower, _)) => {
                upper.extend(lower);
                vec![Value::Set(upper, joint)]
            }
            (upper, lower) => vec![upper, lower],
        })
    }

    /// One side, or several with signs between them.
    fn item(&mut self) -> Result<Value, Unread> {
        // `= 5`, `≈ 5`: what stands before is missing, as where an answer is cut out of a text.
        if matches!(self.peek(), Some(Token::Sign(Sign::Equal) | Token::Approximately)) {
            self.at += 1;
        }
        let mut sides = vec![self.operation()?];
        let mut signs = Vec::new();
        loop {
            match self.peek() {
                Some(Token::Sign(sign)) => signs.push(*sign),
                // What follows only approximates the value before, unless that is a name: `x ≈ 3`.
                Some(Token::Approximately) if matches!(sides.as_slice(), [side] if is_name(side)) => {
                    signs.push(Sign::Equal)
                }
                Some(Token::Approximately) => {
                    self.at += 1;
                    self.operation()?;
                    continue;
                }
                Some(Token::NotIn) => return Err(Unread::Syntax),
                _ => break,
            }
            self.at += 1;
            sides.push(self.operation()?);
            if sides.len() > MAX_MEMBERS {
                return Err(MANY);
            }
        }
        Ok(if signs.is_empty() {
            sides.remove(0)
        } else {
            Value::Relation(Relation { sides, signs })
        })
    }

    fn operation(&mut self) -> Result<Value, Unread> {
        let mut left = self.sum()?;
        let mut count = 0;
        while let Some(Token::Set(operator)) = self.peek() {
            self.at += 1;
            let right = self.sum()?;
            left = Value::Operation(*operator, Box::new([left, right]));
            count += 1;
            // A chain of unions leans to the left: its length is its depth.
            if count > MAX_DEPTH {
                return Err(DEEP);
            }
        }
        Ok(left)
    }

    /// What stands between an opening bracket, already read, and its closing one.
    pub fn bracketed(&mut self, open: Fence) -> Result<Value, Unread> {
        if open == Fence::Brace && self.eat(&Token::Close(Fence::Brace)) {
            return Ok(Value::Named(crate::math::value::Named::Empty));
        }
        let parts = matches!(self.peek_at(1), Some(Token::Mid | Token::Colon | Token::Bar));
        if open == Fence::Brace && parts && matches!(self.peek(), Some(Token::Letter(_))) {
            self.at += 1;
            return self.condition();
        }
        let bars = std::mem::take(&mut self.bars);
        let inner = self.nested(|parser| parser.members(false));
        self.bars = bars;
        let (members, joint) = inner?;
        if open == Fence::Group && self.eat(&Token::Over) {
            return self.over(members);
        }
        let Some(Token::Close(close)) = self.next() else { return Err(Unread::Syntax) };
        closed(open, *close, members, joint)
    }

    /// The old `{a \over b}`, already behind `\over`.
    fn over(&mut self, mut upper: Vec<Value>) -> Result<Value, Unread> {
        let lower = self.nested(|parser| parser.sum())?;
        self.expect(&Token::Close(Fence::Group))?;
        match upper.pop() {
            Some(value) if upper.is_empty() => quotient(value, lower),
            _ => Err(Unread::Syntax),
        }
    }

    /// `{x | condition}`, behind the name.
    fn condition(&mut self) -> Result<Value, Unread> {
        self.at += 1;
        let condition = self.nested(|parser| parser.list(false))?;
        self.expect(&Token::Close(Fence::Brace))?;
        Ok(Value::Where(Box::new(condition)))
    }
}

/// What parts two members of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Separator {
    Comma,
    And,
    Or,
    Semicolon,
}

impl Separator {
    fn of(token: &Token) -> Option<Self> {
        match token {
            Token::Comma => Some(Self::Comma),
            Token::Semicolon => Some(Self::Semicolon),
            Token::And => Some(Self::And),
            Token::Or => Some(Self::Or),
            _ => None,
        }
    }
}

/// A name that something may be assigned to.
fn is_name(value: &Value) -> bool {
    matches!(value, Value::Amount(amount) if amount.expr.letters().is_some())
        || matches!(value, Value::Text(_))
}

/// Lists that semicolons part: each a tuple if it has several members.
fn parted(mut lists: Vec<Vec<Value>>) -> Vec<Value> {
    lists.retain(|list| !list.is_empty());
    if lists.len() == 1 {
        return lists.remove(0);
    }
    let tuple =
        |mut list: Vec<Value>| if list.len() == 1 { list.remove(0) } else { Value::Tuple(list) };
    lists.into_iter().map(tuple).collect()
}

/// A list, or its only member.
fn gathered(mut members: Vec<Value>, joint: Joint) -> Value {
    if members.len() == 1 { members.remove(0) } else { Value::Set(members, joint) }
}

/// What brackets make of what they hold.
fn closed(
    open: Fence,
    close: Fence,
    mut members: Vec<Value>,
    joint: Joint,
) -> Result<Value, Unread> {
    let one = members.len() == 1;
    match (open, close) {
        (Fence::Round, Fence::Round)
        | (Fence::Square, Fence::Square)
        | (Fence::Group, Fence::Group)
            if one =>
        {
            Ok(members.remove(0))
        }
        (Fence::Brace, Fence::Brace) | (Fence::Group, Fence::Group) => {
            Ok(Value::Set(members, joint))
        }
        (Fence::Round, Fence::Round) | (Fence::Angle, Fence::Angle) => Ok(Value::Tuple(members)),
        (Fence::Round | Fence::Square, Fence::Round | Fence::Square) => {
            let closed = [open == Fence::Square, close == Fence::Square];
            interval(members, closed)
        }
        _ => Err(Unread::Syntax),
    }
}

/// `[a, b)`; more than two numbers in square brackets are a tuple.
fn interval(mut members: Vec<Value>, closed: [bool; 2]) -> Result<Value, Unread> {
    match (members.pop(), members.pop()) {
        (Some(high), Some(low)) if members.is_empty() => {
            Ok(Value::Interval { ends: Box::new([low, high]), closed })
        }
        (Some(last), Some(before)) if closed == [true, true] => {
            members.extend([before, last]);
            Ok(Value::Tuple(members))
        }
        _ => Err(Unread::Syntax),
    }
}
