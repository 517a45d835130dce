// Batch norm in training, fused with ReLU and a residual, and its gradient.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "../runtime/parallel.h"
#include "checks.h"
#include "handlers.h"
#include "layouts.h"
#include "norm_jobs.h"
#include "types.h"

namespace sparsejax {
namespace {

// Takes the attributes, and checks operands against x, which determines the shape and the dtypes.
class NormChecker : public Checker {
 public:
  NormChecker(const char* target, const ffi::AnyBuffer& x, ffi::Dictionary attributes) : Checker(target), x_(x) {
    FloatType("x", x.element_type());
    const size_t axes = x.dimensions().size();
    if (axes < 2) Fail("x", std::to_string(axes) + " axes", "two or more");
    const Layouts layouts = Layouts::Decode(attributes, *this);
    if (layouts.x != layouts.y) Fail("layouts", "two layouts", "one for both sides");
    row_major = layouts.x == Layout::kRowMajor;
    const auto activation = attributes.get<std::string_view>("activation");
    const std::string_view name = activation.has_value() ? *activation : "no value";
    if (name != "none" && name != "relu") Fail("activation", std::string(name), "none or relu");
    relu = name == "relu";
    const auto given = attributes.get<double>("epsilon");
    given.has_value() ? void(epsilon = *given) : Fail("epsilon", "no value", "a float64");
  }
  void Activation(const char* operand, const ffi::AnyBuffer& b) {
    SameType(operand, b, x_.element_type());
    SameShape(operand, b, x_);
  }
  void Vector(const char* operand, const ffi::AnyBuffer& b) {
    SameType(operand, b, x_.element_type() == ffi::DataType::F64 ? ffi::DataType::F64 : ffi::DataType::F32);
    if (ok()) Size(operand, Elements(b), channels());
  }
  int64_t channels() const { return x_.dimensions().back(); }

  bool row_major = false, relu = false;
  double epsilon = 0;

 private:
  const ffi::AnyBuffer& x_;
};

template <typename T>
T* Data(const ffi::AnyBuffer& b) {
  return reinterpret_cast<T*>(b.untyped_data());
}
template <typename T>
T* Data(const std::optional<ffi::AnyBuffer>& b) {
  return b ? Data<T>(*b) : nullptr;
}

// The optional last operand.
std::optional<ffi::AnyBuffer> Optional(const char* operand, const ffi::RemainingArgs& rest, NormChecker& check) {
  if (rest.size() > 1) check.Fail(operand, std::to_string(rest.size()) + " buffers", "one or none");
  if (rest.size() != 1) return std::nullopt;
  const ffi::AnyBuffer buffer = *rest.get<ffi::AnyBuffer>(0);
  check.Activation(operand, buffer);
  return buffer;
}

using Result = ffi::Result<ffi::AnyBuffer>;

// Runs the job for the layout.
template <typename RowsJob, typename ChannelsJob, typename Operands>
ffi::Error RunNorm(ffi::ThreadPool& pool, const NormChecker& check, int64_t elements, const Operands& operands) {
  const auto run = [&](auto job, const Chunks& chunks) { return RunJob(pool, std::move(job), chunks, elements); };
  if (check.row_major) {
    const NormRows rows(check.channels(), elements);
    return run(RowsJob(rows, operands), rows.chunks());
  }
  const NormChannels channels(check.channels(), elements);
  return run(ChannelsJob{channels, operands}, channels.chunks());
}

ffi::Error BatchNormImpl(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer scale, ffi::AnyBuffer bias,
                         ffi::RemainingArgs rest, Result y, Result mean, Result var, ffi::Dictionary attributes) {
  NormChecker check("sparsejax_batch_norm", x, attributes);
  if (!check.ok()) return check.error();
  const auto residual = Optional("residual", rest, check);
  check.Activation("y", *y);
  check.Vector("scale", scale);
  check.Vector("bias", bias);
  check.Vector("mean", *mean);
  check.Vector("var", *var);
  if (!check.ok()) return check.error();
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    using A = Sum<S>;
    NormOperands<S> o{.epsilon = check.epsilon, .relu = check.relu};
    o.x = OperandData<S>(x), o.residual = Data<S>(residual);
    o.scale = Data<A>(scale), o.bias = Data<A>(bias);
    o.y = PrepareResult<S>(*y), o.mean = PrepareResult<A>(*mean), o.var = PrepareResult<A>(*var);
    return RunNorm<NormRowsJob<S>, NormChannelsJob<S>>(pool, check, Elements(x), o);
  });
}

ffi::Error BatchNormGradImpl(ffi::ThreadPool pool, ffi::AnyBuffer ct, ffi::AnyBuffer ct_mean, ffi::AnyBuffer ct_var,
                             ffi::AnyBuffer x, ffi::AnyBuffer scale, ffi::AnyBuffer bias, ffi::AnyBuffer mean,
                             ffi::AnyBuffer var, ffi::RemainingArgs rest, Result dx, Result dscale, Result dbias,
                             ffi::RemainingRets more, ffi::Dictionary attributes) {
  NormChecker check("sparsejax_batch_norm_grad", x, attributes);
  if (!check.ok()) return check.error();
  const auto y = Optional("y", rest, check);
  if (y && !check.relu) check.Fail("y", "a buffer", "none without an activation");
  if (more.size() != rest.size()) check.Fail("dresidual", std::to_string(more.size()) + " buffers", "as many as y");
  check.Activation("ct", ct);
  check.Activation("dx", *dx);
  const std::pair<const char*, const ffi::AnyBuffer*> vectors[] = {
      {"ct_mean", &ct_mean}, {"ct_var", &ct_var}, {"scale", &scale},    {"bias", &bias},
      {"mean", &mean},       {"var", &var},       {"dscale", &*dscale}, {"dbias", &*dbias}};
  for (const auto& [operand, buffer] : vectors) check.Vector(operand, *buffer);
  std::optional<ffi::AnyBuffer> dresidual;
  if (check.ok() && y) {
    dresidual = **more.get<ffi::AnyBuffer>(0);
    check.Activation("dresidual", *dresidual);
  }
  if (!check.ok()) return check.error();
  return DispatchGuarded(x.element_type(), [&](auto element) {
    using S = decltype(element);
    using A = Sum<S>;
    NormGradOperands<S> o{.epsilon = check.epsilon, .relu = check.relu};
    o.ct = OperandData<S>(ct), o.ct_mean = Data<A>(ct_mean), o.ct_var = Data<A>(ct_var);
    o.x = OperandData<S>(x), o.y = Data<S>(y);
    o.scale = Data<A>(scale), o.bias = Data<A>(bias), o.mean = Data<A>(mean), o.var = Data<A>(var);
    o.dx = PrepareResult<S>(*dx, ct), o.dresidual = dresidual ? PrepareResult<S>(*dresidual) : nullptr;
    o.dscale = PrepareResult<A>(*dscale), o.dbias = PrepareResult<A>(*dbias);
    return RunNorm<NormGradRowsJob<S>, NormGradChannelsJob<S>>(pool, check, Elements(x), o);
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(BatchNormHandler, BatchNormImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // x
                                  .Arg<ffi::AnyBuffer>()  // scale
                                  .Arg<ffi::AnyBuffer>()  // bias
                                  .RemainingArgs()        // residual
                                  .Ret<ffi::AnyBuffer>()  // y
                                  .Ret<ffi::AnyBuffer>()  // mean
                                  .Ret<ffi::AnyBuffer>()  // var
                                  .Attrs());

XLA_FFI_DEFINE_HANDLER_SYMBOL(BatchNormGradHandler, BatchNormGradImpl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // ct
                                  .Arg<ffi::AnyBuffer>()  // ct_mean
                                  .Arg<ffi::AnyBuffer>()  // ct_var
                                  .Arg<ffi::AnyBuffer>()  // x
                                  .Arg<ffi::AnyBuffer>()  // scale
                                  .Arg<ffi::AnyBuffer>()  // bias
                                  .Arg<ffi::AnyBuffer>()  // mean
                                  .Arg<ffi::AnyBuffer>()  // var
                                  .RemainingArgs()        // y
                                  .Ret<ffi::AnyBuffer>()  // dx
                                  .Ret<ffi::AnyBuffer>()  // dscale
                                  .Ret<ffi::AnyBuffer>()  // dbias
                                  .RemainingRets()        // dresidual
                                  .Attrs());

}  // namespace sparsejax
