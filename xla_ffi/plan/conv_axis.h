// One spatial axis of a convolution, rewritten as loops with unit stride.
//
// Output o reads the (dilated) source at coordinate o * stride + tap[i] for each tap i of the window. The source is
// zero at coordinates outside it and at those that are no multiple of its dilation. The forward product has tap[i] =
// i * kernel_dilation - low. The input gradient has the same form, with the cotangent as its source, stride and
// dilation exchanged and tap[i] = low - i * kernel_dilation. Both become loops with unit stride:
//   - stride > 1: the source is packed as `planes`, one per residue of the coordinate modulo the stride;
//   - dilation > 1 (and stride 1): outputs are divided into `phases`, one per residue modulo the dilation; each phase
//     uses the taps that meet source elements, and reads them with unit stride;
//   - both: planes, in which the zeros between source elements are packed too.
#ifndef SPARSEJAX_PLAN_CONV_AXIS_H_
#define SPARSEJAX_PLAN_CONV_AXIS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "partition.h"

namespace sparsejax {

struct AxisSpec {
  int64_t in, out, window, stride, low, input_dilation, kernel_dilation;
};

// What a tap of an output phase reads: line `shift` + the output's number within its phase, of plane `plane`. An
// invalid tap meets only zeros.
struct Tap {
  bool valid;
  int64_t plane, shift;
};

class ConvAxis {
 public:
  static ConvAxis Forward(const AxisSpec& s) {
    return ConvAxis(s.in, s.out, s.window, s.stride, s.input_dilation, -s.low, s.kernel_dilation);
  }
  static ConvAxis Transposed(const AxisSpec& s) {
    return ConvAxis(s.out, s.in, s.window, s.input_dilation, s.stride, s.low, -s.kernel_dilation);
  }

  int64_t in() const { return in_; }
  int64_t out() const { return out_; }
  int64_t taps() const { return static_cast<int64_t>(taps_.size()) / std::max<int64_t>(phases_, 1); }
  int64_t phases() const { return phases_; }
  int64_t planes() const { return static_cast<int64_t>(residues_.size()); }
  int64_t bytes() const { return taps_.size() * sizeof(Tap) + (residues_.size() + shifts_.size()) * sizeof(int64_t); }
  int64_t step() const { return step_; }  // distance of neighbouring outputs of one phase

  // Number of outputs of a phase, which are phase, phase + step, ... < out. No phase has more than the first.
  int64_t Count(int64_t phase) const { return phase < out_ ? CeilDiv(out_ - phase, step_) : 0; }

  const Tap& tap(int64_t phase, int64_t i) const { return taps_[phase * taps() + i]; }

  // Source position of line `t` of a plane; -1 for padding and for the zeros of a dilated source.
  int64_t Source(int64_t plane, int64_t t) const {
    int64_t at = t;
    if (stride_ > 1) {
      const int64_t coordinate = t * stride_ + residues_[plane];
      if (coordinate % dilation_ != 0) return -1;
      at = coordinate / dilation_;
    }
    return at >= 0 && at < in_ ? at : -1;
  }

  // Lines(*this, n).count(), without building the lines.
  int64_t LineCount(int64_t n) const {
    int64_t count = shifts_.empty() ? 0 : n;
    for (size_t i = 1; i < shifts_.size(); ++i) count += std::min(shifts_[i] - shifts_[i - 1], n);
    return count;
  }

  // The lines of a plane that a run of `n` outputs reads: the union of [shift, shift + n) over all taps. With a large
  // kernel dilation, the lines between two taps are left out.
  class Lines {
   public:
    Lines() = default;
    Lines(const ConvAxis& axis, int64_t n) : shifts_(axis.shifts_) {
      for (size_t i = 0; i < shifts_.size(); ++i) {
        start_.push_back(static_cast<int64_t>(line_.size()));
        if (i > 0) start_[i] = start_[i - 1] + std::min(shifts_[i] - shifts_[i - 1], n);
        for (int64_t j = static_cast<int64_t>(line_.size()); j < start_[i] + n; ++j)
          line_.push_back(shifts_[i] + j - start_[i]);
      }
    }
    int64_t count() const { return static_cast<int64_t>(line_.size()); }
    int64_t bytes() const { return (shifts_.size() + start_.size() + line_.size()) * sizeof(int64_t); }
    // Number of packed line i in its plane, relative to the run's first output.
    int64_t line(int64_t i) const { return line_[i]; }
    // The packed line of this run that is line i of the run that starts `n` outputs later, or -1 if there is none.
    // Such a line is moved instead of packed again.
    int64_t CarriedFrom(int64_t i, int64_t n) const {
      const auto place = std::lower_bound(line_.begin(), line_.end(), line_[i] + n);
      return place != line_.end() && *place == line_[i] + n ? place - line_.begin() : -1;
    }
    // The packed line that a tap of this shift reads for the run's first output.
    int64_t StartOf(int64_t shift) const {
      return start_[std::lower_bound(shifts_.begin(), shifts_.end(), shift) - shifts_.begin()];
    }

   private:
    std::vector<int64_t> shifts_, start_, line_;
  };

 private:
  ConvAxis(int64_t in, int64_t out, int64_t window, int64_t stride, int64_t dilation, int64_t first, int64_t between)
      : in_(in),
        out_(out),
        stride_(stride),
        dilation_(dilation),
        step_(stride > 1 ? 1 : dilation),
        phases_(std::min(step_, std::max<int64_t>(out, 1))) {
    if (stride > 1) {
      for (int64_t i = 0; i < window; ++i) residues_.push_back(Mod(first + i * between, stride));
      std::sort(residues_.begin(), residues_.end());
      residues_.erase(std::unique(residues_.begin(), residues_.end()), residues_.end());
    } else {
      residues_.push_back(0);
    }
    for (int64_t p = 0; p < phases_; ++p) {
      for (int64_t i = 0; i < window; ++i) {
        const int64_t at = p + first + i * between;
        const int64_t modulus = stride > 1 ? stride : dilation;
        const int64_t residue = Mod(at, modulus);
        const auto plane = std::lower_bound(residues_.begin(), residues_.end(), residue);
        const bool valid = stride > 1 || residue == 0;
        const Tap tap{valid, valid ? plane - residues_.begin() : 0, (at - residue) / modulus};
        taps_.push_back(tap);
        if (valid) shifts_.push_back(tap.shift);
      }
    }
    std::sort(shifts_.begin(), shifts_.end());
    shifts_.erase(std::unique(shifts_.begin(), shifts_.end()), shifts_.end());
  }

  static int64_t Mod(int64_t a, int64_t m) { return ((a % m) + m) % m; }

  int64_t in_, out_, stride_, dilation_, step_, phases_;
  std::vector<int64_t> residues_;
  std::vector<Tap> taps_;
  std::vector<int64_t> shifts_;
};

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CONV_AXIS_H_
