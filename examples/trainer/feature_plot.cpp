// SPDX-License-Identifier: MIT
#include "feature_plot.hpp"

#include <fmt/format.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

#include "gnuplot.hpp"
#include "metrics.hpp"

namespace trainer {

namespace {

// The plane to look at: the features themselves if they are two, otherwise their first two principal
// components. [dims, 2]; with one dimension the second column is zero.
Eigen::MatrixX2d projection_of(const Eigen::MatrixXd& features) {
  const Eigen::Index dims = features.cols();
  if (dims <= 2) return Eigen::MatrixX2d::Identity(dims, 2);
  const Eigen::MatrixXd centred = features.rowwise() - features.colwise().mean();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(centred.transpose() * centred);
  return solver.eigenvectors().rightCols(2).rowwise().reverse();  // eigenvalues rise
}

std::string plane_text(Eigen::Index dims) {
  if (dims == 2) return "";
  return dims == 1 ? "one feature; the height means nothing"
                   : fmt::format("first two principal components of {} features", dims);
}

}  // namespace

feature_panel measured_panel(const row_matrix<float>& features, const std::vector<std::uint8_t>& labels,
                             std::int64_t classes) {
  feature_panel panel;
  const Eigen::MatrixXd all = features.cast<double>();
  panel.points = all * projection_of(all);
  panel.means.setZero(classes, 2);
  panel.covariances.assign(static_cast<std::size_t>(classes), Eigen::Matrix2d::Zero());
  std::vector<double> counts(static_cast<std::size_t>(classes));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    counts[labels[i]] += 1;
    panel.means.row(labels[i]) += panel.points.row(static_cast<Eigen::Index>(i));
  }
  for (std::size_t k = 0; k < counts.size(); ++k) {
    panel.means.row(static_cast<Eigen::Index>(k)) /= std::max(counts[k], 1.0);
  }
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const Eigen::RowVector2d offset =
        panel.points.row(static_cast<Eigen::Index>(i)) - panel.means.row(labels[i]);
    panel.covariances[labels[i]] += offset.transpose() * offset / std::max(counts[labels[i]], 1.0);
  }
  panel.caption = "means and 2σ ellipses measured on these features";
  panel.plane = plane_text(features.cols());
  return panel;
}

feature_panel model_panel(const row_matrix<float>& features, const row_matrix<float>& means,
                          const row_matrix<float>& variances) {
  feature_panel panel;
  const Eigen::MatrixXd all = features.cast<double>();
  const Eigen::MatrixX2d projection = projection_of(all);
  panel.points = all * projection;
  panel.means = means.cast<double>() * projection;
  for (Eigen::Index k = 0; k < means.rows(); ++k) {
    const Eigen::VectorXd variance = variances.row(k).cast<double>().transpose();
    panel.covariances.push_back(projection.transpose() * variance.asDiagonal() * projection);
  }
  panel.caption = "the model's own means and 2σ ellipses";
  panel.plane = plane_text(features.cols());
  return panel;
}

namespace {

// The boundary of the 2-sigma ellipse around a mean, closed.
Eigen::MatrixX2d ellipse(const Eigen::RowVector2d& mean, const Eigen::Matrix2d& covariance) {
  Eigen::SelfAdjointEigenSolver<Eigen::Matrix2d> solver;
  solver.computeDirect(covariance);
  const Eigen::Matrix2d axes =
      2 * solver.eigenvectors() * solver.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal();
  constexpr Eigen::Index corners = 96;
  Eigen::MatrixX2d points(corners + 1, 2);
  for (Eigen::Index i = 0; i <= corners; ++i) {
    const double angle = 2 * std::acos(-1.0) * static_cast<double>(i) / static_cast<double>(corners);
    points.row(i) = mean + (axes * Eigen::Vector2d(std::cos(angle), std::sin(angle))).transpose();
  }
  return points;
}

struct square {
  double x = 0, y = 0, half_width = 1;
};

// The square that shows all ellipses and all but the outermost points of each side.
square view_of(const feature_panel& panel) {
  double low[2], high[2];
  for (Eigen::Index axis = 0; axis < 2; ++axis) {
    const auto column = panel.points.col(axis);
    const std::vector<double> values(column.begin(), column.end());
    low[axis] = quantile(values, 0.001);
    high[axis] = quantile(values, 0.999);
    for (Eigen::Index k = 0; k < panel.means.rows(); ++k) {
      const auto boundary =
          ellipse(panel.means.row(k), panel.covariances[static_cast<std::size_t>(k)]).col(axis).eval();
      low[axis] = std::min(low[axis], boundary.minCoeff());
      high[axis] = std::max(high[axis], boundary.maxCoeff());
    }
  }
  const double half = 0.5 * std::max(high[0] - low[0], high[1] - low[1]);
  return {0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), std::max(1.04 * half, 1e-6)};
}

}  // namespace

void draw_features(const std::filesystem::path& directory, const std::vector<feature_panel>& panels,
                   const std::vector<std::uint8_t>& labels, const std::vector<std::string>& class_names) {
  using detail::class_colour;
  constexpr int side = 620, left = 60, top = 60, bottom = 75, legend = 190;
  const int width = static_cast<int>(panels.size()) * (side + left) + legend, height = side + top + bottom;
  const auto across = [&](int pixels) { return static_cast<double>(pixels) / width; };
  const auto up = [&](int pixels) { return static_cast<double>(pixels) / height; };

  std::string script = fmt::format(
      "set multiplot\n"
      "set border lc rgb '#888888'\nset tics scale 0.5 textcolor rgb '#444444' font ',10'\n"
      "set tmargin at screen {}\nset bmargin at screen {}\nunset key\n",
      up(side + bottom), up(bottom));

  for (std::size_t p = 0; p < panels.size(); ++p) {
    const feature_panel& panel = panels[p];
    const square view = view_of(panel);
    const Eigen::ArrayX2d offset =
        (panel.points.rowwise() - Eigen::RowVector2d(view.x, view.y)).array().abs();
    const auto outside = (offset.rowwise().maxCoeff() > view.half_width).count();
    const std::string points_name = fmt::format("features-{}.txt", p + 1);
    const std::string classes_name = fmt::format("classes-{}.txt", p + 1);

    std::string text = "# x y class colour (alpha, red, green, blue)\n";
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const auto row = static_cast<Eigen::Index>(i);
      text += fmt::format("{:.5g} {:.5g} {} {}\n", panel.points(row, 0), panel.points(row, 1), labels[i],
                          0x80000000u | class_colour(labels[i]));
    }
    write_file(directory / points_name, text);

    text = "# class, mean x y; then the 2-sigma ellipse x y: two blocks a class\n";
    for (Eigen::Index k = 0; k < panel.means.rows(); ++k) {
      text += fmt::format("{} {:.5g} {:.5g}\n\n\n", k, panel.means(k, 0), panel.means(k, 1));
      const Eigen::MatrixX2d corners =
          ellipse(panel.means.row(k), panel.covariances[static_cast<std::size_t>(k)]);
      for (Eigen::Index i = 0; i < corners.rows(); ++i) {
        text += fmt::format("{:.5g} {:.5g}\n", corners(i, 0), corners(i, 1));
      }
      text += "\n\n";
    }
    write_file(directory / classes_name, text);

    const int begin = static_cast<int>(p) * (side + left) + left;
    const std::string clipped =
        outside > 0 ? fmt::format(" ({} of {} points lie outside)", outside, labels.size()) : "";
    script += fmt::format(
        "set lmargin at screen {}\nset rmargin at screen {}\n"
        "set xrange [{}:{}]\nset yrange [{}:{}]\n"
        "set title {} font ',16' offset 0,-0.3\n"
        "set xlabel {} font ',11' textcolor rgb '#444444'\n",
        across(begin), across(begin + side), view.x - view.half_width, view.x + view.half_width,
        view.y - view.half_width, view.y + view.half_width, quoted(panel.title),
        quoted(panel.caption + clipped) + ".\"\\n\"." + quoted(panel.plane));
    const bool is_last = p + 1 == panels.size();
    if (is_last) {
      script += fmt::format(
          "set key at screen {},{} left top Left reverse vertical maxrows {} spacing 1.35 samplen 0.8 font "
          "',12'\n",
          across(begin + side + 4), up(side + bottom - 4), class_names.size());
    }
    script += fmt::format(
        "classes = {2}\n"
        "plot '{0}' using 1:2:4 with points pt 7 ps 0.35 lc rgb variable notitle, \\\n"
        "  for [k=0:classes-1] '{1}' index 2*k+1 using 1:2 with lines lw 3.5 lc rgb 'white' notitle, \\\n"
        "  for [k=0:classes-1] '{1}' index 2*k+1 using 1:2 with lines lw 1.5 lc rgb '#222222' notitle, \\\n"
        "  for [k=0:classes-1] '{1}' index 2*k using 2:3 with points pt 7 ps 2.2 lc rgb '#222222' notitle, "
        "\\\n"
        "  for [k=0:classes-1] '{1}' index 2*k using 2:3:1 with labels font ',10' textcolor rgb 'white' "
        "notitle",
        points_name, classes_name, panel.means.rows());
    if (is_last) {
      for (std::size_t k = 0; k < class_names.size(); ++k) {
        script += fmt::format(", \\\n  NaN with points pt 7 ps 1.5 lc rgb {} title {}",
                              class_colour(static_cast<std::int64_t>(k)), quoted(class_names[k]));
      }
    }
    script += "\n";
  }
  draw_picture(directory, "features", width, height, script + "unset multiplot\n");
}

}  // namespace trainer
