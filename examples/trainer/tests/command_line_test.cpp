// SPDX-License-Identifier: MIT

// The checks of numbers on the command lines of the examples. trainer_cli_test and detector_cli_test ask the programs.

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "../../cuda_trainer/options.hpp"
#include "command_line.hpp"
#include "support/files.hpp"

namespace {

using lgm_test::contains;
using lgm_test::error_of;

const std::vector<std::string> not_finite{"nan",   "-nan", "NaN", "nan(7)", "inf",     "-inf",
                                          "1e999", "+inf", "INF", "-1e999", "Infinity"};

bool takes(const CLI::Validator& check, std::string text) { return check(text).empty(); }

}  // namespace

TEST_CASE("numbers: ranges include their ends, and no NaN or infinity") {
  const CLI::Validator share = trainer::between(0.0, 1.0);
  const CLI::Validator count = trainer::between<std::int64_t>(1, 10);
  for (const char* text : {"0", "1", "0.5", "1e-300", "-0"}) CHECK(takes(share, text));
  for (const char* text : {"-1e-300", "1.001", "", "x", "0.5x", "0,5"}) CHECK(!takes(share, text));
  for (const char* text : {"1", "10"}) CHECK(takes(count, text));
  for (const char* text : {"0", "11", "1.5", "-1", "x", "", "99999999999999999999"})
    CHECK(!takes(count, text));
  CHECK(takes(trainer::positive<double>(), "1e-300"));
  CHECK(!takes(trainer::positive<double>(), "0"));
  CHECK(!takes(trainer::positive<float>(), "1e-300"));
  CHECK(!takes(trainer::positive<float>(), "1e39"));  // of a float
  CHECK(takes(trainer::positive<double>(), "1e39"));
  CHECK(takes(trainer::not_negative<float>(), "0"));
  CHECK(!takes(trainer::not_negative<float>(), "-1e-30"));
  CHECK(takes(trainer::at_least(3), "3"));
  CHECK(!takes(trainer::at_least(3), "2"));
  CHECK(!takes(trainer::at_least(0), "2000000000000"));
  for (const std::string& text : not_finite) {
    CAPTURE(text);
    CHECK(!takes(share, text));
    CHECK(!takes(count, text));
    CHECK(!takes(trainer::positive<double>(), text));
    CHECK(!takes(trainer::not_negative<float>(), text));
    CHECK(!takes(trainer::at_least(0), text));
  }
  std::string bad = "nan";
  CHECK(share(bad) == "'nan' is not a number from 0 to 1");
}

TEST_CASE("cuda_trainer: its options are numbers") {
  const auto parsed = [](const std::vector<std::string>& arguments) {
    std::vector<const char*> pointers{"cuda_trainer"};
    for (const std::string& each : arguments) pointers.push_back(each.c_str());
    return cuda_trainer::parse_options(static_cast<int>(pointers.size()), pointers.data()).value();
  };
  CHECK(parsed({"--lr", "0.5", "--seed", "3"}).lr == 0.5f);
  CHECK(parsed({"--lambda", "0"}).lambda == 0);
  for (const char* option : {"--dims", "--hidden", "--epochs", "--batch", "--lr", "--lambda", "--alpha",
                             "--log-every", "--seed"}) {
    for (const std::string& text : not_finite) {
      CAPTURE(option);
      CAPTURE(text);
      CHECK(contains(error_of([&] { parsed({option + ("=" + text)}); }), option));
    }
  }
  CHECK(contains(error_of([&] { parsed({"--lr", "0"}); }), "--lr"));
  CHECK(contains(error_of([&] { parsed({"--lambda", "-1"}); }), "--lambda"));
  CHECK(contains(error_of([&] { parsed({"--seed", "-1"}); }), "--seed"));
}
