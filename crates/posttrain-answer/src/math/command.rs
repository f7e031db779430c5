//! What LaTeX's commands and plain words mean.

use crate::math::expression::Function;
use crate::math::token::{Fence, Token};
use crate::math::value::{Named, SetOperator, Sign};

/// The Greek letters by name and by character; `π` is a number.
const GREEK: [(&str, char); 28] = [
    ("alpha", 'α'),
    ("beta", 'β'),
    ("gamma", 'γ'),
    ("delta", 'δ'),
    ("epsilon", 'ϵ'),
    ("varepsilon", 'ε'),
    ("zeta", 'ζ'),
    ("eta", 'η'),
    ("theta", 'θ'),
    ("iota", 'ι'),
    ("kappa", 'κ'),
    ("lambda", 'λ'),
    ("mu", 'μ'),
    ("nu", 'ν'),
    ("xi", 'ξ'),
    ("rho", 'ρ'),
    ("sigma", 'σ'),
    ("tau", 'τ'),
    ("phi", 'ϕ'),
    ("varphi", 'φ'),
    ("chi", 'χ'),
    ("psi", 'ψ'),
    ("omega", 'ω'),
    ("Delta", 'Δ'),
    ("Gamma", 'Γ'),
    ("Phi", 'Φ'),
    ("Omega", 'Ω'),
    ("ell", 'ℓ'),
];

/// A function by its name, with or without a backslash.
pub(crate) fn function(name: &str) -> Option<Token> {
    let function = match name {
        "sin" => Function::Sin,
        "cos" => Function::Cos,
        "tan" | "tg" => Function::Tan,
        "cot" | "ctg" => Function::Cot,
        "sec" => Function::Sec,
        "csc" => Function::Csc,
        "arcsin" | "asin" => Function::Arcsin,
        "arccos" | "acos" => Function::Arccos,
        "arctan" | "atan" | "arctg" => Function::Arctan,
        "sinh" => Function::Sinh,
        "cosh" => Function::Cosh,
        "tanh" => Function::Tanh,
        "ln" => Function::Ln,
        "exp" => Function::Exp,
        "abs" => Function::Abs,
        "floor" => Function::Floor,
        "ceil" | "ceiling" => Function::Ceil,
        "log" | "lg" => return Some(Token::Log),
        _ => return None,
    };
    Some(Token::Function(function))
}

/// What a word of plain text is, if it is not a name.
pub(crate) fn plain_word(word: &str) -> Option<Token> {
    let lower = word.to_ascii_lowercase();
    Some(match lower.as_str() {
        "and" => Token::And,
        "or" => Token::Or,
        "sqrt" => Token::Sqrt,
        "pi" => Token::Pi,
        "infinity" | "inf" => Token::Infinity,
        "percent" | "percentage" | "pct" => Token::Percent,
        "degree" | "degrees" | "deg" => Token::Degree,
        "union" => Token::Set(SetOperator::Union),
        _ => return function(&lower),
    })
}

/// What a LaTeX command without arguments of its own is.
pub(crate) enum Command {
    Token(Token),
    /// It changes how a formula looks, and not what it says.
    Format,
}

/// What a LaTeX command without arguments of its own is, where it is known.
pub(crate) fn command(name: &str) -> Option<Command> {
    let token = match name {
        "frac" | "dfrac" | "tfrac" | "cfrac" => Token::Frac,
        "sqrt" => Token::Sqrt,
        "binom" | "dbinom" | "tbinom" => Token::Binom,
        "over" => Token::Over,
        "pi" => Token::Pi,
        "infty" | "infinity" => Token::Infinity,
        "times" | "cdot" | "ast" | "bullet" => Token::Times,
        "div" => Token::Divide,
        "pm" => Token::PlusMinus,
        "mp" => Token::MinusPlus,
        "le" | "leq" | "leqslant" | "leqq" => Token::Sign(Sign::LessOrEqual),
        "ge" | "geq" | "geqslant" | "geqq" => Token::Sign(Sign::GreaterOrEqual),
        "lt" => Token::Sign(Sign::Less),
        "gt" => Token::Sign(Sign::Greater),
        "ne" | "neq" => Token::Sign(Sign::Unequal),
        "equiv" => Token::Sign(Sign::Equal),
        "approx" | "simeq" | "sim" => Token::Approximately,
        "in" => Token::Sign(Sign::In),
        "notin" => Token::NotIn,
        "cup" | "bigcup" => Token::Set(SetOperator::Union),
        "cap" | "bigcap" => Token::Set(SetOperator::Intersection),
        "setminus" | "backslash" | "smallsetminus" => Token::Set(SetOperator::Difference),
        "emptyset" | "varnothing" => Token::Named(Named::Empty),
        "R" | "Reals" | "reals" => Token::Named(Named::Reals),
        "Z" => Token::Named(Named::Integers),
        "N" => Token::Named(Named::Naturals),
        "Q" => Token::Named(Named::Rationals),
        "lbrace" => Token::Open(Fence::Brace),
        "rbrace" => Token::Close(Fence::Brace),
        "lbrack" => Token::Open(Fence::Square),
        "rbrack" => Token::Close(Fence::Square),
        "langle" => Token::Open(Fence::Angle),
        "rangle" => Token::Close(Fence::Angle),
        "lfloor" => Token::Open(Fence::Floor),
        "rfloor" => Token::Close(Fence::Floor),
        "lceil" => Token::Open(Fence::Ceil),
        "rceil" => Token::Close(Fence::Ceil),
        "vert" | "lvert" | "rvert" | "Vert" | "lVert" | "rVert" => Token::Bar,
        "mid" => Token::Mid,
        "colon" => Token::Colon,
        "circ" | "degree" => Token::Degree,
        "lor" | "vee" => Token::Or,
        "land" | "wedge" => Token::And,
        "left" | "right" | "big" | "Big" | "bigg" | "Bigg" | "bigl" | "bigr" | "Bigl" | "Bigr"
        | "displaystyle" | "textstyle" | "quad" | "qquad" | "limits" | "nolimits" | "boxed"
        | "fbox" | "mathop" | "middle" => return Some(Command::Format),
        _ => return function(name).or_else(|| greek(name)).map(Command::Token),
    };
    Some(Command::Token(token))
}

fn greek(name: &str) -> Option<Token> {
    GREEK
        .iter()
        .find(|(greek, _)| *greek == name)
        .map(|(greek, _)| Token::Letter((*greek).to_owned()))
}

/// What a single character beyond ASCII is.
pub(crate) fn character(c: char) -> Option<Token> {
    Some(match c {
        'π' => Token::Pi,
        '∞' => Token::Infinity,
        '√' => Token::Sqrt,
        '×' | '·' | '⋅' | '∗' | '•' => Token::Times,
        '÷' | '∕' | '⁄' => Token::Divide,
        '±' => Token::PlusMinus,
        '∓' => Token::MinusPlus,
        '−' | '–' | '‐' | '‑' | '‒' | '﹣' => Token::Minus,
        '≤' | '⩽' | '≦' => Token::Sign(Sign::LessOrEqual),
        '≥' | '⩾' | '≧' => Token::Sign(Sign::GreaterOrEqual),
        '≠' => Token::Sign(Sign::Unequal),
        '≈' => Token::Approximately,
        '∈' => Token::Sign(Sign::In),
        '∉' => Token::NotIn,
        '∪' => Token::Set(SetOperator::Union),
        '∩' => Token::Set(SetOperator::Intersection),
        '∖' => Token::Set(SetOperator::Difference),
        '∅' | '⌀' => Token::Named(Named::Empty),
        'ℝ' => Token::Named(Named::Reals),
        'ℤ' => Token::Named(Named::Integers),
        'ℕ' => Token::Named(Named::Naturals),
        'ℚ' => Token::Named(Named::Rationals),
        'ℂ' => Token::Named(Named::Complexes),
        '⟨' => Token::Open(Fence::Angle),
        '⟩' => Token::Close(Fence::Angle),
        '⌊' => Token::Open(Fence::Floor),
        '⌋' => Token::Close(Fence::Floor),
        '⌈' => Token::Open(Fence::Ceil),
        '⌉' => Token::Close(Fence::Ceil),
        '°' => Token::Degree,
        '∨' => Token::Or,
        '∧' => Token::And,
        '，' => Token::Comma,
        '；' => Token::Semicolon,
        '％' => Token::Percent,
        _ => {
            let (name, _) = GREEK.iter().find(|(_, letter)| *letter == c)?;
            Token::Letter((*name).to_owned())
        }
    })
}

/// The set that a blackboard letter names: `\mathbb{R}`.
pub(crate) fn blackboard(letter: &str) -> Option<Named> {
    Some(match letter.trim() {
        "R" => Named::Reals,
        "Z" => Named::Integers,
        "N" => Named::Naturals,
        "Q" => Named::Rationals,
        "C" => Named::Complexes,
        _ => return None,
    })
}
