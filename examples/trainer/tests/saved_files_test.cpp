// SPDX-License-Identifier: MIT

// Files that version 0.1 saved go on being loaded: golden/saved-0.1. detector_cli_test.sh has the detector's.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "heads.hpp"
#include "idx.hpp"
#include "model_file.hpp"
#include "options.hpp"
#include "training.hpp"
#include "workers.hpp"

namespace {

const std::string saved = LGM_GOLDEN_DIR "/saved-0.1";

// The options that the files were saved with.
trainer::options options_of_then() {
  trainer::options chosen;
  chosen.data = saved + "/images";
  chosen.epochs = chosen.lr_epochs = 20;
  chosen.batch = 10;
  chosen.lr = 0.02;
  chosen.threads = 1;
  chosen.alpha = trainer::parse_alpha(chosen.alpha_text);
  chosen.covariance = lgm::covariance::diagonal;
  chosen.update_mean = trainer::update_rule::moments;
  chosen.update_variance = trainer::update_rule::gradient;
  chosen.resume = saved + "/models";
  return chosen;
}

// Goes on with the training of a head, and checks what 0.1 reported of it.
template <class Head, class MakeHead>
void check_resumed(const std::string& name, const MakeHead& make_head, double train_loss, double test_loss) {
  const trainer::options chosen = options_of_then();
  const trainer::data_set data = trainer::load_data_set(chosen.data);
  const trainer::checkpoint kept(chosen, trainer::data_mark(data.train), name, 0,
                                 trainer::steps_of_epoch(data.train.count(), chosen.batch), 1);
  const std::optional<trainer::saved_training> resumed = kept.resume();
  REQUIRE(resumed);
  CHECK(resumed->steps == 100);
  CHECK(resumed->epochs == 20);
  CHECK(resumed->threads == 1);

  trainer::workers team(1);
  trainer::model<Head> model({data.train.pixels(), 8, 4, 2}, chosen.batch, 5, team,
                             trainer::input_scaling({0, 255}), make_head);
  model.restore(resumed->model, resumed->steps, data.train.count(), chosen.batch);
  const trainer::running_loss train = model.evaluate(data.train), test = model.evaluate(data.test);
  CHECK(train.accuracy() == 1);
  CHECK(test.accuracy() == 1);
  CHECK(std::abs(train.mean().total - train_loss) <= 1e-4 * std::abs(train_loss) + 1e-6);
  CHECK(std::abs(test.mean().total - test_loss) <= 1e-4 * std::abs(test_loss) + 1e-6);
  // What it saves now is what it has read.
  const trainer::model_file again = model.save();
  REQUIRE(again.tensors.size() == resumed->model.tensors.size());
  for (const auto& each : again.tensors) {
    CAPTURE(each.first);
    const trainer::model_tensor& tensor = each.second;
    CHECK((resumed->model.find(each.first, tensor.type, tensor.shape).data == tensor.data));
  }
}

}  // namespace

TEST_CASE("models that 0.1 saved load: softmax") {
  check_resumed<trainer::softmax_head<float>>(
      "softmax", [](std::int64_t max_samples) { return trainer::softmax_head<float>(3, 2, max_samples, 1); },
      0.000582025550629586, 0.0006439313085994917);
}

TEST_CASE("models that 0.1 saved load: L-GM") {
  const trainer::options chosen = options_of_then();
  trainer::lgm_settings settings;
  settings.covariance = chosen.covariance;
  settings.update_mean = chosen.update_mean;
  settings.update_variance = chosen.update_variance;
  settings.lambda = chosen.lambda;
  settings.alpha = chosen.alpha;
  settings.threads = 1;
  check_resumed<trainer::lgm_head>(
      "lgm", [&](std::int64_t max_samples) { return trainer::lgm_head(3, 2, max_samples, 1, settings); },
      -0.012227003462612629, -0.012850952334702015);
}
