// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/types.hpp>
#include <optional>
#include <string>

#include "schedule_text.hpp"

namespace trainer {

enum class head_choice { softmax, lgm, both };

// What changes a parameter of the L-GM head: the optimiser by its gradient, the moments of each class's
// features, or nothing.
enum class update_rule { gradient, moments, off };

inline const char* const fashion_mnist_directory = "/usr/share/datasets/fashion-mnist";

struct options {
  std::string data = fashion_mnist_directory;
  std::string out = "trainer-out";
  head_choice head = head_choice::both;
  std::int64_t dims = 2, epochs = 6, lr_epochs = 6, batch = 128, seed = 0, repeat = 1, train_limit = 0;
  double lr = 3e-3;
  int threads = 0;
  std::string alpha_text = "policy=stepup,value=0.1,step=1000,gamma=2,max=0.3";
  alpha_schedule alpha;
  float lambda = 0.1f;
  lgm::covariance covariance = lgm::covariance::identity;
  update_rule update_mean = update_rule::gradient, update_variance = update_rule::off;
  std::string save, resume;  // directories; empty: no
  std::int64_t save_every = 0;

  bool with_softmax() const { return head != head_choice::lgm; }
  bool with_lgm() const { return head != head_choice::softmax; }
};

inline const char* to_string(lgm::covariance covariance) {
  switch (covariance) {
    case lgm::covariance::identity: return "identity";
    case lgm::covariance::spherical: return "spherical";
    case lgm::covariance::diagonal: return "diagonal";
  }
  return "unknown";
}

inline const char* to_string(update_rule rule) {
  switch (rule) {
    case update_rule::gradient: return "gradient";
    case update_rule::moments: return "moments";
    case update_rule::off: return "off";
  }
  return "unknown";
}

inline const char* to_string(head_choice head) {
  switch (head) {
    case head_choice::softmax: return "softmax";
    case head_choice::lgm: return "lgm";
    case head_choice::both: return "both";
  }
  return "unknown";
}

// What the command line asks for; nothing if it asked for help, which is then printed. Throws
// std::runtime_error with one line about what is wrong.
std::optional<options> parse_options(int argc, const char* const* argv);

}  // namespace trainer
