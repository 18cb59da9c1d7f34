// SPDX-License-Identifier: MIT
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "../trainer/metrics.hpp"
#include "gnuplot.hpp"
#include "metrics.hpp"

// Pictures of a detector's results. Each is written with its script and its data into a directory, by gnuplot.

namespace detector {

// roc.png: ROC curves, a panel each for what is told apart, a line a score.
struct roc_line {
  std::string name;  // for the legend
  curve points;
};
struct roc_panel {
  std::string title;
  std::vector<roc_line> lines;
};

// histograms.png: the scores of sets, a panel a score. The first set is the one that the others are told from: the
// axis is chosen for it.
struct histogram_set {
  std::string name;  // for the legend
  std::vector<double> scores;
};
struct histogram_panel {
  std::string title, axis;
  std::vector<histogram_set> sets;
};

// sweep.png: a measure over settings. Along a panel's axis lie its ticks, all the same distance apart; a line has a
// value for each (NaN: none), and may have deviations, drawn as bars.
struct sweep_line {
  std::string name;  // for the legend
  std::vector<double> values, deviations;
};
struct sweep_panel {
  std::string title, axis;
  std::vector<std::string> ticks;
  std::vector<sweep_line> lines;
  double baseline = 0;            // a level across the panel,
  double baseline_deviation = 0;  // with a band of this half height
  std::string baseline_name;      // for the legend; empty: no baseline
};

namespace detail {

// How many panels stand side by side.
inline int columns_of(std::size_t panels) { return panels < 2 ? 1 : panels == 2 || panels == 4 ? 2 : 3; }
inline int rows_of(std::size_t panels) {
  const auto columns = static_cast<std::size_t>(columns_of(panels));
  return static_cast<int>((std::max<std::size_t>(panels, 1) + columns - 1) / columns);
}

template <class Panel, class Lines>
std::size_t longest_name(const std::vector<Panel>& panels, Lines Panel::*lines) {
  std::size_t longest = 1;
  for (const Panel& panel : panels)
    for (const auto& line : panel.*lines) longest = std::max(longest, line.name.size());
  return longest;
}
template <class Panel, class Lines>
std::size_t most_lines(const std::vector<Panel>& panels, Lines Panel::*lines) {
  std::size_t most = 1;
  for (const Panel& panel : panels) most = std::max(most, (panel.*lines).size());
  return most;
}

constexpr const char* axes_style =
    "set border 3 lc rgb '#888888'\nset tics nomirror scale 0.5 textcolor rgb '#444444' font ',10'\n";

// A grid of panels of this size, each with room for its legend above.
struct panel_grid {
  int width = 0, height = 0;
  std::string script;  // what to begin with

  panel_grid(std::size_t panels, int panel_width, int panel_height, std::size_t name_length,
             std::size_t entries) {
    // What gnuplot takes a name to need, which is more than it does.
    const int name_width = 40 + 10 * static_cast<int>(name_length);
    const auto across = static_cast<std::size_t>(std::max(1, panel_width / name_width));
    const std::size_t legend_rows = (entries + across - 1) / across;
    width = columns_of(panels) * std::max(panel_width, name_width);
    height = rows_of(panels) * (panel_height + 18 * static_cast<int>(legend_rows));
    script = fmt::format(
        "set multiplot layout {},{}\n{}"
        "set key outside top center vertical Left reverse maxrows {} samplen 1.5 font ',11'\n",
        rows_of(panels), columns_of(panels), axes_style, legend_rows);
  }
};

// Colours repeat after ten; the lines are then dashed.
inline std::string line_style(std::size_t index) {
  return fmt::format("lc rgb {} dt {}", trainer::detail::class_colour(static_cast<std::int64_t>(index)),
                     index / 10 + 1);
}

// The range of a histogram's axis: all but the lowest scores, cut where the first set would be lost in it.
struct score_range {
  double low = 0, high = 1;
};
inline score_range range_of(const std::vector<histogram_set>& sets) {
  using trainer::quantile;
  score_range range;
  for (std::size_t s = 0; s < sets.size(); ++s) {
    const double lowest = quantile(sets[s].scores, 0.02), highest = quantile(sets[s].scores, 1);
    range.low = s == 0 ? lowest : std::min(range.low, lowest);
    range.high = s == 0 ? highest : std::max(range.high, highest);
  }
  if (sets.empty()) return range;
  const double first_low = quantile(sets[0].scores, 0.01), first_high = quantile(sets[0].scores, 1);
  constexpr double reach = 4;  // in widths of the first set
  const double width = first_high - first_low;
  if (width > 0) {
    range.low = std::max(range.low, first_low - reach * width);
    range.high = std::min(range.high, first_high + reach * width);
  }
  const double least = 1e-6 * std::max(1.0, std::abs(range.low));
  if (!(range.high - range.low > least)) {  // all the same: in the middle
    const double half = std::max(1e-3 * std::abs(range.low), 0.5);
    range = {range.low - half, range.low + half};
  }
  return range;
}

// The share of the scores in each of equal bins, in %; beyond the range they count in the bin at its end, NaN in the
// first.
inline std::vector<double> shares_of(const std::vector<double>& scores, const score_range& range,
                                     std::size_t bins) {
  std::vector<double> share(bins);
  const auto last = static_cast<double>(bins - 1);
  for (const double score : scores) {
    const double position = (score - range.low) / (range.high - range.low) * static_cast<double>(bins);
    const std::size_t bin =
        std::isnan(position) ? 0 : static_cast<std::size_t>(std::clamp(position, 0.0, last));
    share[bin] += 100 / static_cast<double>(scores.size());
  }
  return share;
}

inline std::string number_or_nan(double value) {
  return std::isfinite(value) ? fmt::format("{:.6g}", value) : "NaN";
}

}  // namespace detail

inline void draw_roc(const std::filesystem::path& directory, const std::vector<roc_panel>& panels) {
  constexpr int side = 320, left = 85, top = 50, bottom = 70;
  const int legend = 60 + 8 * static_cast<int>(detail::longest_name(panels, &roc_panel::lines));
  const int panel_width = left + side + legend, panel_height = top + side + bottom;
  const int columns = detail::columns_of(panels.size());
  const int width = columns * panel_width, height = detail::rows_of(panels.size()) * panel_height;
  std::string script = fmt::format(
      "set multiplot\n{}set xrange [0:1]\nset yrange [0:1]\nset grid lc rgb '#e4e4e4' lt 1\n"
      "set xlabel 'share of the others that pass' textcolor rgb '#444444'\n"
      "set ylabel 'share of the test set that passes' textcolor rgb '#444444'\n",
      detail::axes_style);
  for (std::size_t p = 0; p < panels.size(); ++p) {
    const int begin = static_cast<int>(p) % columns * panel_width + left;
    const int end = height - static_cast<int>(p) / columns * panel_height - top;  // from below
    const auto across = [&](int pixels) { return static_cast<double>(pixels) / width; };
    const auto up = [&](int pixels) { return static_cast<double>(pixels) / height; };
    script += fmt::format(
        "set lmargin at screen {}\nset rmargin at screen {}\nset tmargin at screen {}\nset bmargin at screen "
        "{}\n"
        "set key at screen {},{} left top Left reverse vertical maxrows {} samplen 1.5 font ',11'\n",
        across(begin), across(begin + side), up(end), up(end - side), across(begin + side + 12), up(end),
        std::max<std::size_t>(panels[p].lines.size(), 1));

    const std::string file = fmt::format("roc-{}.txt", p + 1);
    std::string text = "# false and true positive rate; a block a line of the legend\n";
    script += fmt::format("set title {} font ',16'\nplot x with lines lc rgb '#bbbbbb' dt 2 notitle",
                          trainer::quoted(panels[p].title));
    for (std::size_t s = 0; s < panels[p].lines.size(); ++s) {
      const curve& points = panels[p].lines[s].points;
      // Points closer than a pixel to the one before are left out.
      double fpr = -1, tpr = -1;
      for (std::size_t i = 0; i < points.fpr.size(); ++i) {
        constexpr double near = 2e-3;
        const bool is_last = i + 1 == points.fpr.size();
        if (!is_last && std::abs(points.fpr[i] - fpr) + std::abs(points.tpr[i] - tpr) < near) continue;
        fpr = points.fpr[i];
        tpr = points.tpr[i];
        text += fmt::format("{:.6g} {:.6g}\n", fpr, tpr);
      }
      if (points.fpr.empty()) text += "NaN NaN\n";
      text += "\n\n";
      script += fmt::format(", \\\n  '{}' index {} using 1:2 with lines lw 1.8 {} title {}", file, s,
                            detail::line_style(s), trainer::quoted(panels[p].lines[s].name));
    }
    script += "\n";
    trainer::write_file(directory / file, text);
  }
  trainer::draw_picture(directory, "roc", width, height, script + "unset multiplot\n");
}

inline void draw_histograms(const std::filesystem::path& directory,
                            const std::vector<histogram_panel>& panels) {
  constexpr std::size_t bins = 80;
  const detail::panel_grid grid(panels.size(), 640, 430, detail::longest_name(panels, &histogram_panel::sets),
                                detail::most_lines(panels, &histogram_panel::sets));
  std::string script =
      grid.script + "set ylabel 'share of the set, %' textcolor rgb '#444444'\nset yrange [0:*]\n";
  for (std::size_t p = 0; p < panels.size(); ++p) {
    const histogram_panel& panel = panels[p];
    const detail::score_range range = detail::range_of(panel.sets);
    bool has_below = false, has_above = false;
    std::vector<std::vector<double>> shares;
    for (const histogram_set& set : panel.sets) {
      for (const double score : set.scores) {
        has_below = has_below || !(score >= range.low);
        has_above = has_above || score > range.high;
      }
      shares.push_back(detail::shares_of(set.scores, range, bins));
    }
    std::string text = "# begin of the bin, then per set the share of its scores in the bin, in %\n";
    for (std::size_t bin = 0; bin <= bins; ++bin) {  // the last line is the end of the last bin
      const double part = static_cast<double>(bin) / static_cast<double>(bins);
      text += fmt::format("{:.8g}", range.low + part * (range.high - range.low));
      for (const auto& share : shares) text += fmt::format(" {:.6g}", bin < bins ? share[bin] : 0.0);
      text += "\n";
    }
    const std::string file = fmt::format("histograms-{}.txt", p + 1);
    trainer::write_file(directory / file, text);

    const std::string ends = has_below && has_above ? "; the end bins hold all beyond"
                             : has_below            ? "; the first bin holds all below"
                             : has_above            ? "; the last bin holds all above"
                                                    : "";
    script += fmt::format(
        "set key title {} font ',16'\nset xlabel {} textcolor rgb '#444444'\nset xrange "
        "[{:.8g}:{:.8g}]\nplot ",
        trainer::quoted(panel.title), trainer::quoted(panel.axis + ends), range.low, range.high);
    for (std::size_t s = 0; s < panel.sets.size(); ++s) {
      // Many filled areas hide each other: only the first set is filled.
      if (s == 0) {
        script += fmt::format("'{}' using 1:2 with fillsteps fs transparent solid 0.3 {} notitle", file,
                              detail::line_style(0));
      }
      script += fmt::format(", \\\n  '{}' using 1:{} with steps lw 1.8 {} title {}", file, s + 2,
                            detail::line_style(s), trainer::quoted(panel.sets[s].name));
    }
    script += "\n";
  }
  trainer::draw_picture(directory, "histograms", grid.width, grid.height, script + "unset multiplot\n");
}

// measure: what the values are, for the vertical axis, which all panels share.
inline void draw_sweep(const std::filesystem::path& directory, const std::string& measure,
                       const std::vector<sweep_panel>& panels) {
  std::size_t name_length = detail::longest_name(panels, &sweep_panel::lines);
  double low = std::numeric_limits<double>::infinity(), high = -low;
  const auto include = [&](double value, double deviation) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value - deviation);
    high = std::max(high, value + deviation);
  };
  const auto deviation_of = [](const sweep_line& line, std::size_t i) {
    return i < line.deviations.size() && std::isfinite(line.deviations[i]) ? line.deviations[i] : 0;
  };
  for (const sweep_panel& panel : panels) {
    if (!panel.baseline_name.empty()) {
      name_length = std::max(name_length, panel.baseline_name.size());
      include(panel.baseline, panel.baseline_deviation);
    }
    for (const sweep_line& line : panel.lines) {
      for (std::size_t i = 0; i < line.values.size(); ++i) include(line.values[i], deviation_of(line, i));
    }
  }
  if (!(low <= high)) low = 0, high = 1;
  const double margin = std::max(0.05 * (high - low), 1e-6);

  const detail::panel_grid grid(panels.size(), 520, 400, name_length,
                                detail::most_lines(panels, &sweep_panel::lines) + 1);
  std::string script = grid.script + fmt::format(
                                         "set ylabel {} textcolor rgb '#444444'\nset yrange [{:.6g}:{:.6g}]\n"
                                         "set grid ytics lc rgb '#e4e4e4' lt 1\n",
                                         trainer::quoted(measure), low - margin, high + margin);
  for (std::size_t p = 0; p < panels.size(); ++p) {
    const sweep_panel& panel = panels[p];
    const auto ticks = static_cast<double>(panel.ticks.size());
    std::string text = "# position on the axis, then value and deviation; a block a line of the legend\n";
    std::string plots;
    if (!panel.baseline_name.empty()) {
      const double level = panel.baseline, band = panel.baseline_deviation;
      plots += fmt::format(
          "'+' using 1:({0:.6g}):({1:.6g}) with filledcurves fs transparent solid 0.15 noborder lc rgb "
          "'#222222' "
          "notitle, \\\n  {2:.6g} with lines lw 1.5 dt 2 lc rgb '#222222' title {3}",
          level - band, level + band, level, trainer::quoted(panel.baseline_name));
    }
    const std::string file = fmt::format("sweep-{}.txt", p + 1);
    for (std::size_t s = 0; s < panel.lines.size(); ++s) {
      const sweep_line& line = panel.lines[s];
      // Lines are a little apart, so that their bars do not hide each other.
      constexpr double apart = 0.05;
      const double shift =
          apart * (static_cast<double>(s) - 0.5 * static_cast<double>(panel.lines.size() - 1));
      for (std::size_t i = 0; i < panel.ticks.size(); ++i) {
        const double value = i < line.values.size() ? line.values[i] : std::nan("");
        text += fmt::format("{:.6g} {} {:.6g}\n", static_cast<double>(i) + shift,
                            detail::number_or_nan(value), deviation_of(line, i));
      }
      text += "\n\n";
      plots += fmt::format(
          "{0}'{1}' index {2} using 1:2 with lines lw 1.5 {3} notitle, \\\n"
          "  '{1}' index {2} using 1:2:3 with yerrorbars pt 7 ps 0.9 lw 1.2 {3} title {4}",
          plots.empty() ? "" : ", \\\n  ", file, s, detail::line_style(s), trainer::quoted(line.name));
    }
    trainer::write_file(directory / file, text);

    std::string tick_text;
    for (std::size_t i = 0; i < panel.ticks.size(); ++i)
      tick_text += fmt::format("{}{} {}", i == 0 ? "" : ", ", trainer::quoted(panel.ticks[i]), i);
    script += fmt::format(
        "set key title {} font ',16'\nset xlabel {} textcolor rgb '#444444'\nset xtics ({})\n"
        "set xrange [-0.5:{:.6g}]\nplot {}\n",
        trainer::quoted(panel.title), trainer::quoted(panel.axis), tick_text, ticks - 0.5, plots);
  }
  trainer::draw_picture(directory, "sweep", grid.width, grid.height, script + "unset multiplot\n");
}

}  // namespace detector
