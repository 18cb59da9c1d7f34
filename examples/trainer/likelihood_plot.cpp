// SPDX-License-Identifier: MIT
#include "likelihood_plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "gnuplot.hpp"
#include "metrics.hpp"

namespace trainer {

void draw_likelihood(const std::filesystem::path& directory, const std::vector<likelihood_panel>& panels) {
  constexpr int side = 680, height = 500;
  constexpr std::uint32_t colours[] = {0x3f90da, 0xbd1f01, 0xffa90e};
  std::string script = fmt::format(
      "set multiplot layout 1,{}\n"
      "set border 3 lc rgb '#888888'\nset tics nomirror scale 0.5 textcolor rgb '#444444' font ',10'\n"
      "set key outside top center vertical Left reverse maxrows 3 samplen 1 font ',11'\n"
      "set ylabel 'share of the images, %' textcolor rgb '#444444'\nset yrange [0:*]\n",
      panels.size());

  for (std::size_t p = 0; p < panels.size(); ++p) {
    const likelihood_panel& panel = panels[p];
    double low = 0, high = 0;
    for (std::size_t s = 0; s < panel.sets.size(); ++s) {
      const std::vector<double> values(panel.sets[s].scores.begin(), panel.sets[s].scores.end());
      const double lowest = quantile(values, 0.02), highest = quantile(values, 1);
      low = s == 0 ? lowest : std::min(low, lowest);
      high = s == 0 ? highest : std::max(high, highest);
    }
    constexpr std::int64_t bins = 80;
    const double bin_width = std::max(high - low, 1e-6) / static_cast<double>(bins);

    // Scores below the axis, infinite ones among them, are counted in its first bin.
    const bool has_below = std::any_of(panel.sets.begin(), panel.sets.end(), [&](const score_set& set) {
      return std::any_of(set.scores.begin(), set.scores.end(), [&](float score) { return !(score >= low); });
    });
    std::string text = "# begin of the bin, then per set the share of its images in the bin, in %\n";
    std::vector<std::vector<double>> shares;
    for (const score_set& set : panel.sets) {
      std::vector<double> share(bins);
      for (const float score : set.scores) {
        const double position = (static_cast<double>(score) - low) / bin_width;
        const double inside = std::clamp(position, 0.0, static_cast<double>(bins - 1));
        const std::size_t bin = std::isnan(inside) ? 0 : static_cast<std::size_t>(inside);
        share[bin] += 100 / static_cast<double>(set.scores.size());
      }
      shares.push_back(std::move(share));
    }
    for (std::size_t bin = 0; bin < bins; ++bin) {
      text += fmt::format("{:.6g}", low + static_cast<double>(bin) * bin_width);
      for (const auto& share : shares) text += fmt::format(" {:.6g}", share[bin]);
      text += "\n";
    }
    text += fmt::format("{:.6g}", high);  // the end of the last bin
    for (std::size_t s = 0; s < shares.size(); ++s) text += " 0";
    text += "\n";
    const std::string name = fmt::format("likelihood-{}.txt", p + 1);
    write_file(directory / name, text);

    script += fmt::format(
        "set key title {} font ',16'\nset xlabel {} textcolor rgb '#444444'\nset xrange [{}:{}]\nplot ",
        quoted(panel.title), quoted(panel.axis + (has_below ? "; the first bin holds all below" : "")), low,
        high);
    for (std::size_t s = 0; s < panel.sets.size(); ++s) {
      const std::uint32_t colour = colours[s % std::size(colours)];
      script += fmt::format(
          "{0}'{1}' using 1:{2} with fillsteps fs transparent solid 0.3 lc rgb {3} title {4}, \\\n"
          "  '{1}' using 1:{2} with steps lw 1.5 lc rgb {3} notitle",
          s == 0 ? "" : ", \\\n  ", name, s + 2, colour, quoted(panel.sets[s].name));
    }
    script += "\n";
  }
  draw_picture(directory, "likelihood", static_cast<int>(panels.size()) * side, height,
               script + "unset multiplot\n");
}

}  // namespace trainer
