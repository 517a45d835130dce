// The `geometry` attribute of the convolution handlers, decoded and checked against the buffers.
#ifndef SPARSEJAX_HANDLERS_CONV_GEOMETRY_H_
#define SPARSEJAX_HANDLERS_CONV_GEOMETRY_H_

#include <cstdint>
#include <string>

#include "../plan/conv_axis.h"
#include "checks.h"

namespace sparsejax {

struct ConvGeometry {
  int64_t groups = 1, in_features = 0, out_features = 0;
  AxisSpec y{}, x{};

  int64_t columns() const { return y.window * x.window * (in_features / groups); }
  int64_t in_pixels() const { return y.in * x.in; }
  int64_t out_pixels() const { return y.out * x.out; }

  // Whether the convolution is a matrix product with the pixels of all examples as its batch: there is one tap, and it
  // reads the pixel that it contributes to.
  bool pointwise() const {
    const auto same = [](const AxisSpec& s) {
      return s.window == 1 && s.in == s.out && s.stride == 1 && s.low == 0 && s.input_dilation == 1;
    };
    return groups == 1 && same(y) && same(x);
  }

  // `transposed` for the input gradient, whose source is the cotangent. The order of the numbers is that of
  // ConvGeometry.attribute in sparsejax/kernels/_geometry.py.
  static ConvGeometry Decode(ffi::Span<const int64_t> a, bool transposed, Checker& check) {
    constexpr size_t kNumbers = 17;
    ConvGeometry g;
    if (a.size() != kNumbers) {
      check.Fail("geometry", std::to_string(a.size()) + " numbers", std::to_string(kNumbers));
      return g;
    }
    g.groups = a[0], g.in_features = a[1], g.out_features = a[2];
    const auto axis = [&](size_t i) {
      return AxisSpec{.in = a[i],
                      .out = a[i + 1],
                      .window = a[i + 2],
                      .stride = a[i + 3],
                      .low = a[i + 4],
                      .input_dilation = a[i + 5],
                      .kernel_dilation = a[i + 6]};
    };
    g.y = axis(3), g.x = axis(10);
    constexpr int64_t kMost = int64_t{1} << 31;
    for (size_t i = 0; i < kNumbers; ++i)
      if (a[i] <= -kMost || a[i] >= kMost) check.Fail("geometry", "value " + std::to_string(a[i]), "less than 2**31");
    for (const AxisSpec& s : {g.y, g.x}) {
      check.AtLeast("geometry's spatial size", std::min(s.in, s.out), 0);
      check.AtLeast("geometry's window, stride and dilation",
                    std::min({s.window, s.stride, s.input_dilation, s.kernel_dilation}), 1);
    }
    check.AtLeast("geometry's features and groups", std::min({g.groups, g.in_features, g.out_features}), 1);
    if (check.ok() && (g.in_features % g.groups || g.out_features % g.groups))
      check.Fail("geometry's groups", "value " + std::to_string(g.groups), "a divisor of both numbers of features");
    if (check.ok() && g.y.window * g.x.window > kMost / std::max<int64_t>(1, g.in_features / g.groups))
      check.Fail("geometry's window", "too many positions", "less than 2**31");
    if (check.ok()) g.CheckTaps(transposed, check);
    return g;
  }

  // The time to plan is proportional to taps times output phases (see ConvAxis), and no buffer limits the window.
  void CheckTaps(bool transposed, Checker& check) const {
    constexpr int64_t kMostPerAxis = int64_t{1} << 20, kMost = int64_t{1} << 26;
    int64_t taps = 1;
    for (const AxisSpec& s : {y, x}) {
      const int64_t phases = transposed ? std::min(s.stride, s.in) : std::min(s.input_dilation, s.out);
      const int64_t of_axis = SaturatingMul(s.window, std::max<int64_t>(phases, 1));
      if (of_axis > kMostPerAxis)
        check.Fail("geometry", std::to_string(of_axis) + " taps times phases", "at most 2**20");
      taps = SaturatingMul(taps, of_axis);
    }
    if (taps > kMost) check.Fail("geometry", std::to_string(taps) + " taps times phases", "at most 2**26");
  }

  // `buffer` has shape (batch, h, w, features), or (batch, w, features) where h is 1.
  void CheckActivations(const char* operand, const ffi::AnyBuffer& buffer, int64_t h, int64_t w, int64_t features,
                        Checker& check) const {
    const auto d = buffer.dimensions();
    if (d.size() != 3 && d.size() != 4) return check.Fail(operand, std::to_string(d.size()) + " axes", "3 or 4");
    const bool same = d.size() == 4 ? static_cast<int64_t>(d[1]) == h && static_cast<int64_t>(d[2]) == w
                                    : h == 1 && static_cast<int64_t>(d[1]) == w;
    if (!same || static_cast<int64_t>(d[d.size() - 1]) != features)
      check.Fail(operand, "shape " + ShapeText(d),
                 "(batch, " + std::to_string(h) + ", " + std::to_string(w) + ", " + std::to_string(features) + ")");
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_CONV_GEOMETRY_H_
