// Where exceptions end.
#pragma once

#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>

namespace posttrain {

// The text is kept in place of a string, which could throw in turn.
inline const char* error_text(const char* what) noexcept {
  static thread_local char text[4096];
  std::snprintf(text, sizeof(text), "%s", what);
  return text;
}

// Runs `body`: NULL, or the text of what it throws.
template <typename Body>
const char* guarded(Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    // What c10 appends to it is a trace of addresses.
    return error_text(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return error_text(error.what());
  } catch (...) {
    return error_text("an exception of an unknown type");
  }
}

}  // namespace posttrain
