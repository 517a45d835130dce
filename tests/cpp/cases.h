// Calls that the checks of the handlers accept, by target: first those that are divided into several tasks, then small
// ones of odd sizes.
#ifndef SPARSEJAX_TESTS_CPP_CASES_H_
#define SPARSEJAX_TESTS_CPP_CASES_H_

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../../xla_ffi/pattern/build.h"
#include "fake_runtime.h"

namespace sparsejax::testing {

using Dims = std::vector<int64_t>;

inline int64_t Count(const Dims& dims) {
  int64_t n = 1;
  for (const int64_t d : dims) n *= d;
  return n;
}

template <typename T>
Array ArrayOf(XLA_FFI_DataType dtype, Dims dims, const std::vector<T>& values) {
  const char* bytes = reinterpret_cast<const char*>(values.data());
  return {.dtype = dtype,
          .dims = std::move(dims),
          .bytes = std::vector<char>(bytes, bytes + values.size() * sizeof(T))};
}

inline Array Ints(const std::vector<int32_t>& values) {
  return ArrayOf(XLA_FFI_DataType_S32, {static_cast<int64_t>(values.size())}, values);
}

// Makes arrays of one element type. Two makers of the same type make the same arrays.
class Maker {
 public:
  explicit Maker(XLA_FFI_DataType dtype) : dtype_(dtype) {}

  XLA_FFI_DataType dtype() const { return dtype_; }
  XLA_FFI_DataType sum_dtype() const { return dtype_ == XLA_FFI_DataType_BF16 ? XLA_FFI_DataType_F32 : dtype_; }

  Array Floats(const Dims& dims) { return Floats(dims, dtype_); }
  Array Floats(const Dims& dims, XLA_FFI_DataType dtype) {
    std::vector<double> wide(Count(dims));
    for (double& v : wide) v = std::uniform_real_distribution<float>(-1, 1)(random_);
    if (dtype == XLA_FFI_DataType_F64) return ArrayOf(dtype, dims, wide);
    const std::vector<float> values(wide.begin(), wide.end());
    if (dtype == XLA_FFI_DataType_F32) return ArrayOf(dtype, dims, values);
    std::vector<uint16_t> upper_halves;
    for (const float v : values) {
      uint32_t bits;
      std::memcpy(&bits, &v, sizeof(bits));
      upper_halves.push_back(static_cast<uint16_t>(bits >> 16));
    }
    return ArrayOf(dtype, dims, upper_halves);
  }

  // Integers from -1 to limit, neither of which is a valid tap.
  Array IntsBelow(int32_t limit, const Dims& dims) {
    std::vector<int32_t> values(Count(dims));
    for (int32_t& v : values) v = std::uniform_int_distribution<int32_t>(-1, limit)(random_);
    return ArrayOf(XLA_FFI_DataType_S32, dims, values);
  }

  // A tenth of the entries of (columns, rows), and room for five more.
  PatternArrays Pattern(int64_t columns, int64_t rows) {
    const std::unique_ptr<bool[]> mask(new bool[columns * rows]);
    int64_t nse = 5;
    for (int64_t i = 0; i < columns * rows; ++i) nse += mask[i] = random_() % 10 == 0;
    return BuildPattern(mask.get(), columns, rows, nse);
  }

 private:
  XLA_FFI_DataType dtype_;
  std::mt19937 random_{0};
};

// The product of a pattern that the target's name ends with: forward, transposed ("_t", "_input_grad"), weight gradient
// ("sddmm", "_weight_grad") or both gradients ("_backward"). `x` and `y` are the shapes of the activations on its two
// sides.
inline Arguments Product(const std::string& target, Maker& make, const PatternArrays& p, const Dims& x, const Dims& y) {
  const Dims nse{static_cast<int64_t>(p.indices.size())};
  const auto is = [&](const char* part) { return target.find(part) != std::string::npos; };
  if (is("sddmm") || is("_weight_grad"))
    return {{make.Floats(x), make.Floats(y), Ints(p.indptr), Ints(p.indices)}, {make.Floats(nse)}, {}};
  if (is("_backward"))
    return {{make.Floats(y), make.Floats(nse), make.Floats(x), Ints(p.indptr), Ints(p.indices), Ints(p.indptr_t),
             Ints(p.indices_t), Ints(p.perm_t)},
            {make.Floats(nse), make.Floats(x)},
            {}};
  if (is("_t_") || is("_input_grad"))
    return {{make.Floats(nse), make.Floats(y), Ints(p.indptr_t), Ints(p.indices_t), Ints(p.perm_t)},
            {make.Floats(x)},
            {}};
  return {{make.Floats(nse), make.Floats(x), Ints(p.indptr), Ints(p.indices)}, {make.Floats(y)}, {}};
}

// Whether the last operand of a target is `perm_t`.
inline bool HasPositions(const std::string& target) {
  const auto is = [&](const char* part) { return target.find(part) != std::string::npos; };
  return is("spmm_t_") || is("_input_grad") || is("_backward");
}

// Adds calls with index arrays that the checks accept though no mask has them: positions that repeat, miss some
// elements or are in the padding, rows that are not sorted, and fewer entries in one orientation than in the other.
inline void AddMalformed(const Arguments call, std::vector<Arguments>& cases) {
  // The last operand is `perm_t`, where a target has one; before it are the indices and pointers of the same
  // orientation.
  const size_t last = call.operands.size() - 1;
  const auto ints = [](Arguments& of, size_t i) { return reinterpret_cast<int32_t*>(of.operands[i].bytes.data()); };
  const int64_t nse = call.operands[last].dims[0];
  const auto add = [&](auto change) {
    Arguments malformed = call;
    change(malformed);
    cases.push_back(std::move(malformed));
  };
  add([&](Arguments& m) { std::fill_n(ints(m, last), nse, 0); });
  add([&](Arguments& m) { ints(m, last)[0] = static_cast<int32_t>(nse - 1); });
  add([&](Arguments& m) { std::copy_n(ints(m, last), nse / 2, ints(m, last) + nse / 2); });
  add([&](Arguments& m) { std::reverse(ints(m, last - 1), ints(m, last - 1) + nse); });
  add([&](Arguments& m) {
    const int64_t rows = m.operands[last - 2].dims[0];
    for (int64_t i = rows / 2; i < rows; ++i) ints(m, last - 2)[i] = ints(m, last - 2)[rows / 2];
  });
}

// Adds the call in every combination of layouts of input and output.
inline void AddInLayouts(Arguments call, std::vector<Arguments>& cases) {
  for (const Dims& layouts : {Dims{0, 0}, Dims{0, 1}, Dims{1, 0}, Dims{1, 1}}) {
    call.attributes["layouts"] = layouts;
    cases.push_back(call);
  }
}

// In every combination of layouts: many blocks of the batch; sizes with which several threads add to a slot, in both
// orientations; one narrow vector; a little more than a vector; small ones; a small batch in
// several tasks.
inline std::vector<Arguments> MatrixCases(const std::string& target, Maker make) {
  constexpr std::array<int64_t, 3> kSizes[] = {{257, 200, 150}, {600, 40, 1500}, {600, 1500, 40}, {3, 700, 900},
                                               {20, 900, 200},  {1, 37, 29},     {7, 64, 16},     {33, 5, 130},
                                               {1, 900, 1500},  {2, 900, 1500}};
  std::vector<Arguments> cases;
  for (const auto& [batch, columns, rows] : kSizes)
    AddInLayouts(Product(target, make, make.Pattern(columns, rows), {batch, columns}, {batch, rows}), cases);
  if (HasPositions(target))
    for (const size_t i : {4, 17, 30}) AddMalformed(cases[i], cases);
  return cases;
}

// One axis of a convolution, padded by `low` on both sides.
struct Axis {
  int64_t in, window, stride = 1, low = 0, input_dilation = 1, kernel_dilation = 1;
  int64_t out() const {
    return ((in - 1) * input_dilation + 1 + 2 * low - (window - 1) * kernel_dilation - 1) / stride + 1;
  }
};

inline std::vector<Arguments> ConvCases(const std::string& target, Maker make) {
  struct Shape {
    int64_t batch, groups, in, out;
    Axis y, x;
  };
  const Axis plain{.in = 14, .window = 3, .low = 1};
  const Axis strided{.in = 15, .window = 3, .stride = 2, .low = 1};
  const Axis dilated{.in = 9, .window = 4, .stride = 3, .low = 2, .input_dilation = 2, .kernel_dilation = 3};
  const Axis phases{.in = 9, .window = 3, .low = 2, .input_dilation = 2};
  const Axis none{.in = 1, .window = 1};
  const Axis cropped{.in = 14, .window = 5, .stride = 3, .low = -1};
  std::vector<Arguments> cases;
  for (const Shape& s : {Shape{32, 1, 12, 16, plain, plain}, Shape{3, 2, 32, 64, strided, plain},
                         Shape{20, 1, 24, 32, dilated, strided}, Shape{70, 4, 16, 16, phases, phases},
                         Shape{1, 1, 5, 7, strided, strided}, Shape{5, 1, 2, 3, none, cropped}}) {
    const PatternArrays p = make.Pattern(s.y.window * s.x.window * s.in / s.groups, s.out);
    Dims geometry{s.groups, s.in, s.out};
    for (const Axis& a : {s.y, s.x})
      for (const int64_t n : {a.in, a.out(), a.window, a.stride, a.low, a.input_dilation, a.kernel_dilation})
        geometry.push_back(n);
    Arguments call = Product(target, make, p, {s.batch, s.y.in, s.x.in, s.in}, {s.batch, s.y.out(), s.x.out(), s.out});
    call.attributes["geometry"] = geometry;
    AddInLayouts(std::move(call), cases);
  }
  if (HasPositions(target))
    for (const size_t i : {0, 5, 15}) AddMalformed(cases[i], cases);
  return cases;
}

// Many channels, and two that are divided into parts.
inline std::vector<Arguments> ChannelCases(const std::string& target, Maker make) {
  std::vector<Arguments> cases;
  for (const Dims& shape : {Dims{16, 20, 21, 33}, Dims{64, 40, 41, 2}})
    for (const int64_t layout : {0, 1}) {
      Arguments call{{make.Floats(shape)}, {make.Floats({shape.back()}, make.sum_dtype())}, {}};
      if (target == "sparsejax_channel_dot_v2") call.operands.push_back(make.Floats(shape));
      call.attributes["layouts"] = Dims{layout, layout};
      cases.push_back(std::move(call));
    }
  return cases;
}

// Windows that overlap, touch, and leave gaps, with padding; a batch that is not full vectors.
inline Arguments PoolCase(const std::string& target, Maker& make, const Dims& x, const Dims& y, const Dims& geometry) {
  const Array taps = make.IntsBelow(3 * 2, y);
  Arguments call{{}, {}, {{"geometry", geometry}}};
  if (target == "sparsejax_sum_pool_v2") call.operands = {make.Floats(x)}, call.results = {make.Floats(y)};
  if (target == "sparsejax_sum_unpool_v2") call.operands = {make.Floats(y)}, call.results = {make.Floats(x)};
  if (target == "sparsejax_max_pool_v2") call.operands = {make.Floats(x)}, call.results = {make.Floats(y), taps};
  if (target == "sparsejax_max_take_v2") call.operands = {make.Floats(x), taps}, call.results = {make.Floats(y)};
  if (target == "sparsejax_max_put_v2") call.operands = {make.Floats(y), taps}, call.results = {make.Floats(x)};
  return call;
}

inline std::vector<Arguments> PoolCases(const std::string& target, Maker make) {
  std::vector<Arguments> cases;
  for (const int64_t layout : {0, 1})
    for (const Arguments& call :
         {PoolCase(target, make, {70, 15, 12, 16}, {70, 8, 6, 16}, {15, 8, 3, 2, 1, 12, 6, 2, 2, 0}),
          PoolCase(target, make, {3, 7, 9, 5}, {3, 2, 5, 5}, {7, 2, 2, 5, 0, 9, 5, 2, 2, 1})}) {
      cases.push_back(call);
      cases.back().attributes["layouts"] = Dims{layout, layout};
    }
  return cases;
}

// With or without a residual. The gradient takes the output and returns the residual's gradient where there is one.
inline Arguments NormCase(const std::string& target, Maker& make, const Dims& shape, bool residual) {
  const auto vector = [&] { return make.Floats({shape.back()}, make.sum_dtype()); };
  Arguments call{{}, {make.Floats(shape), vector(), vector()}, {}};
  if (target == "sparsejax_batch_norm_v2") {
    call.operands = {make.Floats(shape), vector(), vector()};
  } else {
    call.operands = {make.Floats(shape), vector(), vector(), make.Floats(shape),
                     vector(),           vector(), vector(), vector()};
    if (residual) call.results.push_back(make.Floats(shape));
  }
  if (residual) call.operands.push_back(make.Floats(shape));
  call.attributes["activation"] = std::string("relu");
  call.attributes["epsilon"] = 2.0;  // keeps variances positive, which are numbers from -1 to 1 here
  return call;
}

inline std::vector<Arguments> NormCases(const std::string& target, Maker make) {
  std::vector<Arguments> cases;
  for (const int64_t layout : {0, 1})
    for (const Dims& shape : {Dims{16, 20, 21, 33}, Dims{3, 5, 67}})
      for (const bool residual : {false, true}) {
        cases.push_back(NormCase(target, make, shape, residual));
        cases.back().attributes["layouts"] = Dims{layout, layout};
      }
  return cases;
}

// Several blocks of queries and keys, heads that share keys, a length of one, more and fewer queries than keys, and
// every kind of bias and mask. The mask hides all keys of some queries.
inline std::vector<Arguments> AttentionCases(const std::string& target, Maker make) {
  struct Shape {
    int64_t batch, queries, keys, heads, kv_heads, features;
    bool causal;
    Dims bias, mask;
  };
  std::vector<Arguments> cases;
  for (const Shape& s : {Shape{3, 150, 300, 4, 2, 24, false, {}, {}}, Shape{2, 131, 131, 3, 3, 17, true, {}, {}},
                         Shape{1, 1, 1, 1, 1, 1, false, {}, {}}, Shape{2, 5, 140, 2, 2, 7, true, {1, 1, 1, 1}, {}},
                         Shape{2, 70, 270, 2, 1, 33, true, {0, 1, 0, 1}, {1, 0, 1, 1}},
                         Shape{2, 70, 9, 2, 1, 64, false, {0, 0, 1, 0}, {1, 0, 0, 1}}}) {
    const Dims q{s.batch, s.queries, s.heads, s.features}, k{s.batch, s.keys, s.kv_heads, s.features};
    const Dims sizes{s.batch, s.heads, s.queries, s.keys}, per_query{s.batch, s.heads, s.queries};
    const auto numbers = [&] { return make.Floats(per_query, make.sum_dtype()); };
    const auto elements = [&](const Dims& axes) {
      int64_t n = 1;
      for (size_t i = 0; i < axes.size(); ++i) n *= axes[i] ? sizes[i] : 1;
      return n;
    };
    Arguments call{{make.Floats(q), make.Floats(k), make.Floats(k)}, {make.Floats(q), numbers(), numbers()}, {}};
    if (target == "sparsejax_attention_grad_v1")
      call = {{make.Floats(q), numbers(), make.Floats(q), make.Floats(k), make.Floats(k), make.Floats(q), numbers(),
               numbers()},
              {make.Floats(q), make.Floats(k), make.Floats(k)},
              {}};
    if (!s.bias.empty()) call.operands.push_back(make.Floats({elements(s.bias)}, make.sum_dtype()));
    if (!s.mask.empty()) {
      std::vector<char> seen(elements(s.mask));
      for (size_t i = 0; i < seen.size(); ++i) seen[i] = i > 300 && i % 3 == 0;
      call.operands.push_back(ArrayOf(XLA_FFI_DataType_PRED, {elements(s.mask)}, seen));
    }
    call.attributes["bias"] = s.bias, call.attributes["mask"] = s.mask;
    call.attributes["causal"] = s.causal, call.attributes["scale"] = 0.25;
    cases.push_back(std::move(call));
  }
  return cases;
}

// The calls of a target; none if it is not known here.
inline std::vector<Arguments> CasesOf(const std::string& target, XLA_FFI_DataType dtype) {
  const auto starts = [&](const char* prefix) { return target.rfind(prefix, 0) == 0; };
  if (starts("sparsejax_spmm") || starts("sparsejax_sddmm")) return MatrixCases(target, Maker(dtype));
  if (starts("sparsejax_conv")) return ConvCases(target, Maker(dtype));
  if (starts("sparsejax_channel")) return ChannelCases(target, Maker(dtype));
  if (starts("sparsejax_batch_norm")) return NormCases(target, Maker(dtype));
  if (starts("sparsejax_attention")) return AttentionCases(target, Maker(dtype));
  if (starts("sparsejax_sum") || starts("sparsejax_max")) return PoolCases(target, Maker(dtype));
  return {};
}

}  // namespace sparsejax::testing

#endif  // SPARSEJAX_TESTS_CPP_CASES_H_
