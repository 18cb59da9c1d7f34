// SPDX-License-Identifier: MIT
#include "apply.hpp"

#include <fmt/format.h>

#include <Eigen/Core>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "../trainer/model_file.hpp"
#include "deployed_model.hpp"
#include "npy.hpp"
#include "scores.hpp"

namespace detector {

namespace {

void write(const fmt::memory_buffer& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw std::runtime_error("standard output: cannot be written");
  }
}

}  // namespace

void apply(const apply_options& chosen) {
  Eigen::setNbThreads(1);
  std::optional<deployed_model> model;
  acceptance accepted;
  std::size_t column = 0;
  {
    const trainer::model_file file = trainer::load_model(chosen.model);
    try {
      accepted = read_acceptance(file);
      model.emplace(file, chosen.threads);
      column = model->scores().index_of(accepted.score);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(chosen.model.string() + ": " + error.what());
    }
  }
  const std::unique_ptr<row_reader> rows = open_rows(chosen.input);
  require_columns(*rows, model->inputs(),
                  model->has_network() ? "the model's images" : "the model's features");

  fmt::memory_buffer text;
  fmt::format_to(std::back_inserter(text), "row\tclass\tposterior\t{}\tverdict\n", accepted.score);
  for_feature_batches(&*model, *rows,
                      [&](const trainer::const_matrix_view<float>& features, std::int64_t begin) {
                        const row_scores scores = model->scores()(features);
                        for (std::size_t i = 0; i < scores.predicted.size(); ++i) {
                          const double score = scores.columns[column][i];
                          fmt::format_to(std::back_inserter(text), "{}\t{}\t{:.6g}\t{:.9g}\t{}\n",
                                         begin + static_cast<std::int64_t>(i), scores.predicted[i],
                                         std::exp(scores.log_posterior[i]), score,
                                         accepted.accepts(score) ? "accept" : "reject");
                        }
                        write(text);
                        text.clear();
                      });
}

}  // namespace detector
