// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host/as_device.hpp>
#include <lgm/detail/host/call.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/whitening_driver.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/host_context.hpp>
#include <lgm/types.hpp>

// A full covariance that all classes share, on the host (the detector of Lee et al., NeurIPS 2018, among others): estimated
// from the moments of the classes' features, and taken out of features and means, after which the identity is the covariance:
//
//   lgm::whiten(ctx, shape, map, features, white, w);          // [samples, dims]
//   lgm::whiten(ctx, of_means, map, mean, white_mean, w);      // samples = classes: the means are rows as well
//   mixture.mean = white_mean, mixture.log_abs_det = map.log_abs_det;
//   shape.covariance = lgm::covariance::identity;
//   lgm::score(ctx, shape, mixture, white, result, w);         // log densities are those of the features
//
// What lgm/host.hpp says of all functions holds here too.

// What follows depends on how this translation unit is compiled, and so does its name.
namespace lgm::detail {
inline namespace LGM_HOST_NAMESPACE {
namespace host {

// The pieces of whiten's workspace.
template <class T>
struct whiten_pieces {
  std::int64_t rows;
  T* tile;
  detail::host_device<T, detail::host_threads> device;

  whiten_pieces(detail::arena& a, const host_context& ctx, const shape& s)
      : rows(detail::whiten_rows(s, ctx.tile_bytes / 2)),
        tile(a.take<T>(detail::bounded_product(rows, s.dims))),
        device(ctx, threads(ctx), rows, s.dims, a) {}
};
template <class T>
std::size_t whiten_bytes(const host_context& ctx, const shape& s) {
  detail::arena a;
  const whiten_pieces<T> sizes(a, ctx, s);
  static_cast<void>(sizes);
  return a.bytes();
}

// The same of estimate_whitening.
template <class A>
struct whitening_pieces {
  detail::whitening_buffers<A> buffers;
  detail::host_device<A, detail::host_threads> device;

  whitening_pieces(detail::arena& a, const host_context& ctx, const shape& s)
      : buffers(a, s.dims), device(ctx, threads(ctx), s.dims, s.dims, a) {}
};

}  // namespace host
}  // namespace LGM_HOST_NAMESPACE
}  // namespace lgm::detail

namespace lgm {
inline namespace LGM_HOST_NAMESPACE {

// Bytes of workspace that estimate_whitening needs with moments of A: two matrices [dims, dims] or less. workspace_size, which
// is for the functions that every batch needs, does not cover it. 0 for a shape that it would refuse.
template <class A>
std::size_t whitening_workspace_size(const host_context& ctx, const shape& s) {
  static_assert(detail::host::is_supported<A>, "moments are float or double");
  if (detail::host::check_shape(ctx, s) != status::success) return 0;
  detail::arena a;
  const detail::host::whitening_pieces<A> sizes(a, ctx, s);
  static_cast<void>(sizes);
  return a.bytes();
}

// The covariance that all classes share, each about its own mean, as a map that takes it out; see whitening and
// whitening_options. Computed in A.
//   moments  count, scatter, and with out.offset mean. Of a class whose count is 0 nothing else is read
//   out      its matrix must not be null
// A covariance that is singular to within A's rounding, or not finite (no samples, for one):
// status::not_positive_definite, and nothing is written.
template <class A, class T>
status estimate_whitening(const host_context& ctx, const shape& s, const class_moments<A>& moments,
                          const whitening_options<detail::named_t<T>>& options, const whitening<T>& out,
                          workspace w) {
  static_assert(detail::host::is_supported<T> && detail::host::is_supported<A>,
                "moments and results are float or double");
  const status checked = detail::first_failure(detail::host::check_shape(ctx, s),
                                               detail::check_whitening(s, moments, options, out));
  if (checked != status::success) return checked;
  if (w.data == nullptr) return status::null_pointer;
  if (w.bytes < whitening_workspace_size<A>(ctx, s)) return status::workspace_too_small;
  detail::arena a(w);
  detail::host::whitening_pieces<A> pieces(a, ctx, s);
  detail::whitening_driver<detail::host_device<A, detail::host_threads>, A, T> driver(
      pieces.device, s, moments, out, pieces.buffers);
  driver.factor(options);
  if (!std::isfinite(pieces.buffers.sums[2])) return status::not_positive_definite;
  driver.write();
  return status::success;
}

// y = W (x - c) of each sample (eq:whitening), of a batch of features or of the classes' means.
//   in   [samples, dims], row stride shape.feature_stride
//   out  [samples, dims], row stride shape.gradient_stride; must not overlap `in`
// The shape's classes and covariance have no part in it.
template <class T>
status whiten(const host_context& ctx, const shape& s, const whitening<detail::named_t<T>>& map, const T* in,
              detail::named_t<T>* out, workspace w) {
  static_assert(detail::host::is_supported<T>, "features are float or double");
  const status checked =
      detail::first_failure(detail::host::check_shape(ctx, s), detail::check_whiten(s, map, in, out));
  if (checked != status::success) return checked;
  if (w.data == nullptr) return status::null_pointer;
  if (w.bytes < detail::host::whiten_bytes<T>(ctx, s)) return status::workspace_too_small;
  detail::arena a(w);
  detail::host::whiten_pieces<T> pieces(a, ctx, s);
  detail::run_whiten(
      pieces.device, s, map, in, [](const T* all, std::int64_t first) { return all + first; }, out,
      pieces.rows, pieces.tile);
  return status::success;
}

}  // namespace LGM_HOST_NAMESPACE
}  // namespace lgm
