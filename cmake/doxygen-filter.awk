# SPDX-License-Identifier: MIT
# Shows Doxygen a header's plain comments as it wants them: before or behind a declaration, the comment of that
# declaration; between the includes and the namespace, the comment of the file; in a function's body, none.

# A comment's lines wait in block[] until the line after them says what they are about.
function release(documents, i, line, name, in_list) {
  for (i = 1; i <= held; ++i) {
    line = block[i]
    if (documents) {
      sub(/\/\//, "///", line)
      if (in_list && line ~ /\/\/\/ [^ ]/) {
        print "///"
        in_list = 0
      }
      # Arguments, one a line, become the items of a list; longer lines of theirs are indented further.
      if (match(line, /\/\/\/   [a-z_.]+(, [a-z_.]+)*(\([^)]*\))?  +/)) {
        name = substr(line, RSTART + 6, RLENGTH - 6)
        sub(/ +$/, "", name)
        line = substr(line, 1, RSTART - 1) "/// - `" name "`: " substr(line, RSTART + RLENGTH)
        in_list = 1
      } else if (in_list) {
        sub(/\/\/\/     +/, "///   ", line)
      } else {
        sub(/\/\/\/   /, "///       ", line)  # code
      }
      if (line !~ /\/\/\/    /) gsub(/#/, "\\#", line)
    }
    print line
  }
  held = 0
}

/SPDX-License-Identifier/ || /clang-format (on|off)/ { next }
# How a file is compiled is no part of a function's name, and how an argument is deduced no part of its type.
/namespace LGM_HOST_NAMESPACE/ || /^\/\/ What follows depends on how this translation unit/ { next }
{
  while (match($0, /detail::named_t<[A-Za-z]+>/))
    $0 = substr($0, 1, RSTART - 1) substr($0, RSTART + 16, RLENGTH - 17) substr($0, RSTART + RLENGTH)
}

# Declarations stand outside all braces, and two columns in within a type.
/^\/\// || (in_type && /^  \/\//) { block[++held] = $0; next }

held && /^$/ {
  if (in_namespace || described) {
    release(0)
  } else {
    print "/// @file"
    release(1)
    described = 1
  }
}
held { release(1) }

/^namespace / { in_namespace = 1 }
/^(struct|class|enum) / && !/;$/ { in_type = 1 }
/^};/ { in_type = 0 }
in_type && (/^  [^ ]/ || unfinished) && /[a-z0-9;,}] +\/\/ / { sub(/ \/\/ /, " ///< ") }
{
  unfinished = /=$/
  print
}
