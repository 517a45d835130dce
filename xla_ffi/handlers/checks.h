// Operand checks shared by all handlers. Sizes, dtypes, monotone pointers and the range of every index are checked on
// every call, so no operand can make a kernel access other memory. Messages have the form of sparsejax/_checks.py.
#ifndef SPARSEJAX_HANDLERS_CHECKS_H_
#define SPARSEJAX_HANDLERS_CHECKS_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>

#include "../runtime/isa.h"
#include "dtype_name.h"
#include "xla/ffi/api/ffi.h"

namespace sparsejax {

namespace ffi = xla::ffi;

using Ints = ffi::BufferR1<ffi::S32>;

template <typename Buffer>
int64_t Elements(const Buffer& b) {
  return static_cast<int64_t>(b.element_count());
}

// The operands and the result of a product: values or activations, activations, row pointers, indices.
inline auto BindProduct() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Arg<Ints>()
      .Arg<Ints>()
      .Ret<ffi::AnyBuffer>();
}
// The same in the transposed orientation, whose last operand is the permutation.
inline auto BindTransposedProduct() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Arg<Ints>()
      .Arg<Ints>()
      .Arg<Ints>()
      .Ret<ffi::AnyBuffer>();
}

// Operands: cotangent, values, activations, the pattern in both orientations. Results: the gradients of the values
// and of the activations.
inline auto BindBackward() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Arg<Ints>()
      .Arg<Ints>()
      .Arg<Ints>()
      .Arg<Ints>()
      .Arg<Ints>()
      .Ret<ffi::AnyBuffer>()
      .Ret<ffi::AnyBuffer>();
}

inline std::string ShapeText(ffi::AnyBuffer::Dimensions dimensions) {
  std::string text;
  for (const auto n : dimensions) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "(" + text + ")";
}

// Keeps the message of the first failed check; later checks do nothing.
class Checker {
 public:
  explicit Checker(const char* target) : target_(target) {}

  bool ok() const { return message_.empty(); }
  ffi::Error error() const { return ffi::Error::InvalidArgument(message_); }

  void Fail(const std::string& operand, const std::string& got, const std::string& expected) {
    if (ok()) message_ = std::string(target_) + ": " + operand + " has " + got + "; expected " + expected + ".";
  }

  void Size(const char* operand, int64_t got, int64_t expected) {
    if (got != expected) Fail(operand, std::to_string(got) + " elements", std::to_string(expected));
  }

  // The shape of a matrix.
  void Shape(const char* operand, const ffi::AnyBuffer& buffer, int64_t rows, int64_t columns) {
    const auto d = buffer.dimensions();
    if (d.size() != 2 || d[0] != rows || d[1] != columns)
      Fail(operand, "shape " + ShapeText(d), "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")");
  }

  void Rank(const char* operand, const ffi::AnyBuffer& buffer, size_t rank) {
    if (buffer.dimensions().size() != rank)
      Fail(operand, std::to_string(buffer.dimensions().size()) + " axes", std::to_string(rank));
  }

  void SameType(const char* operand, const ffi::AnyBuffer& got, ffi::DataType expected) {
    if (got.element_type() != expected)
      Fail(operand, "dtype " + DtypeName(got.element_type()),
           "dtype " + DtypeName(expected) + ", that of the other operands");
  }

  void SameShape(const char* operand, const ffi::AnyBuffer& got, const ffi::AnyBuffer& x) {
    const auto a = got.dimensions(), b = x.dimensions();
    if (!std::equal(a.begin(), a.end(), b.begin(), b.end())) Fail(operand, "another shape", "the shape of x");
  }

  void FloatType(const char* operand, ffi::DataType type) {
    if (type != ffi::DataType::F32 && type != ffi::DataType::F64 && type != ffi::DataType::BF16)
      Fail(operand, "dtype " + DtypeName(type), "dtype float32, float64 or bfloat16");
  }

  void AtLeast(const char* operand, int64_t got, int64_t low) {
    if (got < low) Fail(operand, "value " + std::to_string(got), "at least " + std::to_string(low));
  }

  // ptr[0] = 0, ptr[i] <= ptr[i + 1], ptr[n - 1] <= nse.
  void Pointers(const char* operand, const int32_t* ptr, int64_t n, int64_t nse) {
    if (!ok()) return;
    if (n < 1) return Fail(operand, "no elements", "rows + 1");
    if (ptr[0] != 0) return Fail(operand, "first element " + std::to_string(ptr[0]), "0");
    bool decreases = false;
    for (int64_t i = 0; i + 1 < n; ++i) decreases |= ptr[i + 1] < ptr[i];  // without a branch: vectorised
    if (decreases) {
      const int64_t at = std::adjacent_find(ptr, ptr + n, std::greater<int32_t>()) - ptr;
      return Fail(operand, "a decrease after element " + std::to_string(at), "pointers that never decrease");
    }
    if (ptr[n - 1] > nse)
      Fail(operand, "last element " + std::to_string(ptr[n - 1]), "at most nse = " + std::to_string(nse));
  }

  // 0 <= values[i] < limit for the first n values.
  void Indices(const char* operand, const int32_t* values, int64_t n, int64_t limit) {
    if (!ok() || n == 0) return;
    if (limit > 0 && Table().all_below(values, n, static_cast<int32_t>(std::min<int64_t>(limit, INT32_MAX)))) return;
    const int32_t* wrong = std::find_if(values, values + n, [&](int32_t v) { return v < 0 || v >= limit; });
    if (wrong == values + n) return;  // the limit is beyond those of int32
    Fail(operand, "value " + std::to_string(*wrong) + " at element " + std::to_string(wrong - values),
         "values in [0, " + std::to_string(limit) + ")");
  }

 private:
  const char* target_;
  std::string message_;
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_CHECKS_H_
