// SPDX-License-Identifier: MIT

// Going on with a training: that it has the same bits, what stands in its way, and the signals that end it early.

#include <doctest/doctest.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "checkpoint.hpp"
#include "heads.hpp"
#include "interruption.hpp"
#include "model_file.hpp"
#include "options.hpp"
#include "support/files.hpp"
#include "training.hpp"

namespace {

namespace fs = std::filesystem;
using lgm_test::contains;
using lgm_test::error_of;
using lgm_test::temporary_directory;
using trainer::model_file;

trainer::options lgm_options() {
  trainer::options chosen;
  chosen.epochs = chosen.lr_epochs = 4;
  chosen.covariance = lgm::covariance::diagonal;
  chosen.update_variance = trainer::update_rule::gradient;
  chosen.alpha = trainer::parse_alpha("0.25");
  return chosen;
}

}  // namespace

TEST_CASE("resuming: each option that matters is compared, and named") {
  const temporary_directory directory;
  trainer::options before = lgm_options();
  before.save = before.resume = directory.path();
  const auto at = [](const trainer::options& chosen, const std::string& mark = "data") {
    return trainer::checkpoint(chosen, mark, "lgm", 7, 10, 2);
  };
  CHECK(!at(before).resume());
  CHECK(at(before).saved_path() == directory / "lgm-seed-7.safetensors");
  at(before).save({}, 15);
  const auto resumed = at(before).resume();
  REQUIRE(resumed);
  CHECK(resumed->steps == 15);
  CHECK(resumed->epochs == 4);
  CHECK(resumed->threads == 2);

  const auto error = [&](const std::function<void(trainer::options&)>& change) {
    trainer::options now = before;
    change(now);
    return error_of([&] { at(now).resume(); });
  };
  CHECK(contains(error([](auto& now) { now.dims = 3; }), "--dims: '3' now, '2' when it was saved"));
  CHECK(contains(error([](auto& now) { now.batch = 3; }), "--batch: "));
  CHECK(contains(error([](auto& now) { now.lr = 0.0031; }), "--lr: "));
  CHECK(contains(error([](auto& now) { now.lambda = 0.2f; }), "--lambda: "));
  CHECK(contains(error([](auto& now) { now.alpha = trainer::parse_alpha("0.5"); }), "--alpha: "));
  CHECK(contains(error([](auto& now) { now.covariance = lgm::covariance::spherical; }), "--covariance: "));
  CHECK(
      contains(error([](auto& now) { now.update_mean = trainer::update_rule::moments; }), "--update-mean: "));
  CHECK(contains(error([](auto& now) { now.update_variance = trainer::update_rule::off; }),
                 "--update-variance: "));
  CHECK(contains(error([](auto& now) { now.epochs = 3; }), "--epochs: 3 now, 4 when it was saved"));
  CHECK(contains(error([](auto& now) { now.lr_epochs = 5; }), "--lr-epochs: 5 now, 4 when"));
  CHECK(contains(error_of([&] { at(before, "other data").resume(); }), "--data or --train-limit: "));
  CHECK(error([](auto& now) { now.epochs = now.lr_epochs = 5; }) == "nothing was thrown");
  CHECK(error([](auto& now) { now.threads = 5; }) == "nothing was thrown");
  // The same number, written otherwise.
  CHECK(error([](auto& now) { now.alpha = trainer::parse_alpha("value=0.25,max=0.25"); }) ==
        "nothing was thrown");

  // Files whose metadata lies.
  const fs::path path = directory / "lgm-seed-7.safetensors";
  const model_file good = trainer::load_model(path);
  const auto changed = [&](const std::string& name, const std::string& text) {
    model_file model = good;
    model.metadata[name] = text;
    trainer::save_model(path, model);
    return error_of([&] { at(before).resume(); });
  };
  CHECK(contains(changed("format", "pt"), "has format 'pt', not lgm-trainer"));
  CHECK(contains(changed("version", "2\n"), "has version '2?' of lgm-trainer"));
  CHECK(contains(changed("head", "softmax"), "--head: "));
  CHECK(contains(changed("seed", "8"), "--seed: '7' now, '8' when"));
  for (const char* text : {"", "-1", "1.5", "x", " 1", "9223372036854775808"}) {
    CAPTURE(text);
    CHECK(contains(changed("steps", text), "not a count"));
    CHECK(contains(changed("epochs", text), "not a count"));
  }
  CHECK(contains(changed("steps", "41"), "41 steps are more than its 4 epochs have"));
  CHECK(changed("steps", "40") == "nothing was thrown");
  CHECK(contains(changed("epochs", "9223372036854775807"), "--epochs"));
  model_file bare = good;
  bare.metadata.erase("dims");
  trainer::save_model(path, bare);
  CHECK(contains(error_of([&] { at(before).resume(); }), "no 'dims'"));
}

TEST_CASE("saving does not overwrite what it did not read") {
  const temporary_directory one, other;
  trainer::options chosen = lgm_options();
  chosen.save = one.path();
  const trainer::checkpoint kept(chosen, "data", "lgm", 0, 1, 2);
  kept.require_free();
  kept.save({}, 0);
  CHECK(contains(error_of([&] { kept.require_free(); }), "exists; --resume"));
  chosen.resume = other.path();
  CHECK(contains(error_of([&] { kept.require_free(); }), "exists; --resume"));
  chosen.resume = (one.path() / ".").string();
  kept.require_free();
}

namespace {

trainer::image_set random_images(std::int64_t count) {
  trainer::image_set set;
  set.rows = 3;
  set.columns = 2;
  std::mt19937 random(8);
  for (std::int64_t i = 0; i < count * 6; ++i)
    set.images.push_back(static_cast<std::uint8_t>(random() >> 24));
  for (std::int64_t i = 0; i < count; ++i) set.labels.push_back(static_cast<std::uint8_t>(random() % 3));
  return set;
}

// Trains with a head for 3 epochs of 4 steps, once straight on and once for every step through a file after it,
// and compares all bits.
template <class Head, class MakeHead>
void check_resuming(const MakeHead& make_head) {
  const trainer::image_set data = random_images(50);
  const trainer::training_options how{3, 3, 15, 0.01, 5};
  const trainer::input_scaling scaling(data.images);
  trainer::workers team(1);
  std::FILE* const nowhere = std::fopen("/dev/null", "w");
  REQUIRE(nowhere != nullptr);
  const auto make = [&](std::uint64_t seed) {
    return trainer::model<Head>({6, 5, 4, 2}, how.batch, seed, team, scaling,
                                [&](std::int64_t samples) { return make_head(samples, seed); });
  };

  trainer::model<Head> straight = make(1);
  std::vector<std::string> states;  // after each step
  trainer::progress shown("", how.epochs, data.count(), 0, nowhere);
  straight.train(data, how, shown, [&](bool epoch_ended) {
    states.push_back(trainer::model_bytes(straight.save()));
    CHECK(epoch_ended == (states.size() % 4 == 0));
    return true;
  });
  REQUIRE(states.size() == 12);

  for (std::int64_t steps = 0; steps <= 12; ++steps) {
    CAPTURE(steps);
    trainer::model<Head> first = make(1);
    trainer::progress first_shown("", how.epochs, data.count(), 0, nowhere);
    if (steps > 0) {
      first.train(data, how, first_shown, [&](bool) { return first.record().steps < steps; });
    }
    CHECK(first.record().steps == steps);
    const model_file saved = trainer::read_model(trainer::model_bytes(first.save()));

    trainer::model<Head> second = make(2);  // another seed: everything has to come from the file
    second.restore(saved, steps, data.count(), how.batch);
    CHECK(trainer::model_bytes(second.save()) == trainer::model_bytes(saved));
    trainer::progress second_shown("", how.epochs, data.count(), 0, nowhere);
    bool same = true;
    second.train(data, how, second_shown, [&](bool) {
      const auto done = static_cast<std::size_t>(second.record().steps);
      same = same && trainer::model_bytes(second.save()) == states[done - 1];
      return true;
    });
    CHECK(same);
    CHECK(second.record().steps == 12);
    CHECK(second.record().timed_steps == 12 - steps);
    CHECK(trainer::model_bytes(second.save()) == states.back());
    CHECK(second.evaluate(data).sum.total == straight.evaluate(data).sum.total);
  }

  // A file of another model, or one whose counts are not those of its steps.
  model_file saved = straight.save();
  trainer::model<Head> fresh = make(2);
  CHECK(contains(error_of([&] { fresh.restore(saved, 11, data.count(), how.batch); }), "epoch.counts"));
  for (const std::int64_t correct : {-1, 51}) {
    model_file wrong = saved;
    wrong.tensors.erase("epoch.counts");
    const std::int64_t counts[] = {50, correct};
    wrong.put("epoch.counts", {2}, counts);
    CHECK(contains(error_of([&] { fresh.restore(wrong, 12, data.count(), how.batch); }), "epoch.counts"));
  }
  for (const auto& tensor : saved.tensors) {
    model_file wrong = saved;
    wrong.tensors.erase(tensor.first);
    CHECK(contains(error_of([&] { fresh.restore(wrong, 12, data.count(), how.batch); }),
                   "no tensor '" + tensor.first + "'"));
  }
  const float more = 0;
  saved.put("more", {1}, &more);
  CHECK(contains(error_of([&] { fresh.restore(saved, 12, data.count(), how.batch); }), "tensors"));
  std::fclose(nowhere);
}

}  // namespace

TEST_CASE("resuming gives the same bits after any step: softmax") {
  check_resuming<trainer::softmax_head<float>>([](std::int64_t samples, std::uint64_t seed) {
    return trainer::softmax_head<float>(3, 2, samples, seed);
  });
}

TEST_CASE("resuming gives the same bits after any step: L-GM") {
  using trainer::update_rule;
  struct kind {
    lgm::covariance covariance;
    update_rule mean, variance;
  };
  for (const kind& each : {kind{lgm::covariance::identity, update_rule::gradient, update_rule::off},
                           kind{lgm::covariance::spherical, update_rule::moments, update_rule::gradient},
                           kind{lgm::covariance::diagonal, update_rule::gradient, update_rule::gradient},
                           kind{lgm::covariance::diagonal, update_rule::moments, update_rule::moments}}) {
    CAPTURE(trainer::to_string(each.covariance));
    trainer::lgm_settings settings;
    settings.covariance = each.covariance;
    settings.update_mean = each.mean;
    settings.update_variance = each.variance;
    settings.lambda = 0.1f;
    settings.alpha = trainer::parse_alpha("policy=stepup,value=0.1,step=5,gamma=2,max=0.3");
    settings.threads = 1;
    check_resuming<trainer::lgm_head>([&](std::int64_t samples, std::uint64_t seed) {
      return trainer::lgm_head(3, 2, samples, seed, settings);
    });
  }
}

TEST_CASE("rate's cycle: as long as it is told, whatever the number of epochs") {
  const trainer::image_set data = random_images(50);
  const trainer::input_scaling scaling(data.images);
  trainer::workers team(1);
  std::FILE* const nowhere = std::fopen("/dev/null", "w");
  REQUIRE(nowhere != nullptr);
  const auto state = [&](std::int64_t epochs, std::int64_t rate_epochs) {
    trainer::model<trainer::softmax_head<float>> model(
        {6, 4, 2}, 15, 1, team, scaling,
        [&](std::int64_t samples) { return trainer::softmax_head<float>(3, 2, samples, 1); });
    trainer::progress shown("", epochs, data.count(), 0, nowhere);
    std::string after_first;
    model.train(data, {epochs, rate_epochs, 15, 0.01, 5}, shown, [&](bool epoch_ended) {
      if (epoch_ended && after_first.empty()) after_first = trainer::model_bytes(model.save());
      return true;
    });
    return after_first;
  };
  CHECK(state(1, 2) == state(2, 2));
  CHECK(state(1, 2) == state(3, 2));
  CHECK(state(1, 1) != state(1, 2));
  std::fclose(nowhere);
}

TEST_CASE("interruption: the first signal is noted, the second one is not taken") {
  struct sigaction before {
  }, during{}, noted{}, after{};
  for (const int signal : {SIGINT, SIGTERM}) {
    sigaction(signal, nullptr, &before);
    {
      const trainer::interruption interruption;
      CHECK(!interruption.happened());
      sigaction(signal, nullptr, &during);
      REQUIRE((during.sa_handler != SIG_DFL));
      std::raise(signal);
      CHECK(interruption.happened());
      for (const int next : {SIGINT, SIGTERM}) {
        sigaction(next, nullptr, &noted);
        CHECK((noted.sa_handler == SIG_DFL));
      }
    }
    sigaction(signal, nullptr, &after);
    CHECK((after.sa_handler == before.sa_handler));
  }
  // What is ignored stays so.
  const auto kept = std::signal(SIGINT, SIG_IGN);
  {
    const trainer::interruption interruption;
    std::raise(SIGINT);
    CHECK(!interruption.happened());
  }
  std::signal(SIGINT, kept);
}
