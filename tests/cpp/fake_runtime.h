// The part of XLA that handlers use, without XLA: a call frame, a thread pool and errors. Every instruction
// that runs is then compiled with the sanitizer. Only the functions that these handlers call exist.
#ifndef SPARSEJAX_TESTS_CPP_FAKE_RUNTIME_H_
#define SPARSEJAX_TESTS_CPP_FAKE_RUNTIME_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "xla/ffi/api/c_api.h"

namespace sparsejax::testing {

// Threads that run tasks in the order of their arrival.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 0; i < threads; ++i) workers_.emplace_back([this] { Work(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopped_ = true;
    }
    ready_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }
  int64_t size() const { return static_cast<int64_t>(workers_.size()); }

  void Schedule(std::function<void()> task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    ready_.notify_one();
  }

 private:
  void Work() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      ready_.wait(lock, [this] { return stopped_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
  std::vector<std::thread> workers_;
};

// An operand or a result, in memory of exactly its size.
struct Array {
  XLA_FFI_DataType dtype;
  std::vector<int64_t> dims;
  std::vector<char> bytes;
  char* elsewhere = nullptr;  // memory of the caller, used instead of `bytes` where it is not null

  char* data() { return elsewhere != nullptr ? elsewhere : bytes.data(); }
};

using Attribute = std::variant<std::vector<int64_t>, std::string, double, bool>;

struct Arguments {
  std::vector<Array> operands, results;
  std::map<std::string, Attribute> attributes;  // sorted by name, as handlers expect
};

}  // namespace sparsejax::testing

// The types that the interface leaves to the runtime.
struct XLA_FFI_ExecutionContext {
  sparsejax::testing::Pool* pool;
};

struct XLA_FFI_Error {
  std::string message;
};

namespace sparsejax::testing {

inline const XLA_FFI_Api& Api() {
  static const XLA_FFI_Api api = [] {
    XLA_FFI_Api a{};
    a.struct_size = XLA_FFI_Api_STRUCT_SIZE;
    a.XLA_FFI_Error_Create = [](XLA_FFI_Error_Create_Args* args) { return new XLA_FFI_Error{args->message}; };
    a.XLA_FFI_ThreadPool_NumThreads = [](XLA_FFI_ThreadPool_NumThreads_Args* args) -> XLA_FFI_Error* {
      *args->num_threads = args->ctx->pool->size();
      return nullptr;
    };
    a.XLA_FFI_ThreadPool_Schedule = [](XLA_FFI_ThreadPool_Schedule_Args* args) -> XLA_FFI_Error* {
      args->ctx->pool->Schedule([task = args->task, data = args->data] { task(data); });
      return nullptr;
    };
    return a;
  }();
  return api;
}

// A call frame with copies of shapes and attributes. As in XLA, it does not exist after the handler returns.
class Frame {
 public:
  Frame(Pool& pool, Arguments& call) : context_{&pool}, attributes_(call.attributes) {
    for (Array& a : call.operands) Describe(a, operands_);
    for (Array& a : call.results) Describe(a, results_);
    for (const auto& [name, value] : attributes_) Describe(name, value);
    operand_types_.assign(operands_.size(), XLA_FFI_ArgType_BUFFER);
    result_types_.assign(results_.size(), XLA_FFI_RetType_BUFFER);
    const auto count = [](const auto& v) { return static_cast<int64_t>(v.size()); };
    frame_.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
    frame_.api = &Api();
    frame_.ctx = &context_;
    frame_.stage = XLA_FFI_ExecutionStage_EXECUTE;
    frame_.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, count(operands_), operand_types_.data(), operands_.data()};
    frame_.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, count(results_), result_types_.data(), results_.data()};
    frame_.attrs = {XLA_FFI_Attrs_STRUCT_SIZE, nullptr,       count(values_),
                    value_types_.data(),       names_.data(), values_.data()};
  }
  Frame(const Frame&) = delete;

  // Null, or the error.
  XLA_FFI_Error* Call(XLA_FFI_Handler* handler) { return handler(&frame_); }

 private:
  // The interface takes pointers to everything, and not to const; descriptors live here, where they never move.
  template <typename T>
  static T* Keep(std::deque<T>& kept, T value) {
    return &kept.emplace_back(std::move(value));
  }

  void Describe(Array& a, std::vector<void*>& buffers) {
    int64_t* dims = Keep(dims_, a.dims)->data();
    buffers.push_back(Keep(buffers_, XLA_FFI_Buffer{XLA_FFI_Buffer_STRUCT_SIZE, nullptr, a.dtype, a.data(),
                                                    static_cast<int64_t>(a.dims.size()), dims}));
  }

  void Describe(const std::string& name, const Attribute& value) {
    names_.push_back(Keep(spans_, XLA_FFI_ByteSpan{name.data(), name.size()}));
    if (const auto* ints = std::get_if<std::vector<int64_t>>(&value)) {
      value_types_.push_back(XLA_FFI_AttrType_ARRAY);
      values_.push_back(Keep(arrays_, XLA_FFI_Array{XLA_FFI_DataType_S64, ints->size(), Pointer(ints->data())}));
    } else if (const auto* string = std::get_if<std::string>(&value)) {
      value_types_.push_back(XLA_FFI_AttrType_STRING);
      values_.push_back(Keep(spans_, XLA_FFI_ByteSpan{string->data(), string->size()}));
    } else if (const auto* truth = std::get_if<bool>(&value)) {
      value_types_.push_back(XLA_FFI_AttrType_SCALAR);
      values_.push_back(Keep(scalars_, XLA_FFI_Scalar{XLA_FFI_DataType_PRED, Pointer(truth)}));
    } else {
      value_types_.push_back(XLA_FFI_AttrType_SCALAR);
      values_.push_back(Keep(scalars_, XLA_FFI_Scalar{XLA_FFI_DataType_F64, Pointer(&std::get<double>(value))}));
    }
  }
  static void* Pointer(const void* p) { return const_cast<void*>(p); }

  XLA_FFI_ExecutionContext context_;
  const std::map<std::string, Attribute> attributes_;
  std::deque<std::vector<int64_t>> dims_;
  std::deque<XLA_FFI_Buffer> buffers_;
  std::deque<XLA_FFI_ByteSpan> spans_;
  std::deque<XLA_FFI_Array> arrays_;
  std::deque<XLA_FFI_Scalar> scalars_;
  std::vector<void*> operands_, results_, values_;
  std::vector<XLA_FFI_ByteSpan*> names_;
  std::vector<XLA_FFI_ArgType> operand_types_;
  std::vector<XLA_FFI_RetType> result_types_;
  std::vector<XLA_FFI_AttrType> value_types_;
  XLA_FFI_CallFrame frame_{};
};

// Calls the handler as XLA does: the frame is deleted when the handler returns. Returns the error message, empty if
// there was none.
inline std::string Call(XLA_FFI_Handler* handler, Pool& pool, Arguments& call) {
  auto frame = std::make_unique<Frame>(pool, call);
  const std::unique_ptr<XLA_FFI_Error> error(frame->Call(handler));
  frame.reset();
  return error ? error->message : "";
}

}  // namespace sparsejax::testing

#endif  // SPARSEJAX_TESTS_CPP_FAKE_RUNTIME_H_
